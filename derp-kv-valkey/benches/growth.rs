//! How the cost grows: callers of one hot key, keys, batches, primaries.

mod support;

use anyhow::Result;
use derp_kv_valkey::test_server::{Cluster, Server};
use redis::aio::ConnectionLike;
use support::measure::{Contender, Plan, compare, interleave, rows};
use support::{Args, Data, Op, Row, Rows, Subjects};

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut growth = Growth { plan: Plan::new(&args), rows: Rows::new(&args)?, args };
    let server = Server::start().await?;
    let subjects = Subjects::standalone(&server).await?;
    growth.callers(&subjects).await?;
    growth.keys(&subjects).await?;
    growth.batches(&subjects).await?;
    drop((subjects, server));
    growth.primaries().await
}

struct Growth {
    plan: Plan,
    rows: Rows,
    args: Args,
}

impl Growth {
    /// The points of a series; the short mode does the first two.
    fn points(&self, series: &str, points: &[usize]) -> Vec<usize> {
        let count = match (self.args.wants(series), self.args.short) {
            (false, _) => 0,
            (true, true) => 2,
            (true, false) => points.len(),
        };
        points[..count].to_vec()
    }

    async fn push<C: ConnectionLike + Clone + Send + Sync + 'static>(
        &mut self,
        row: Row,
        subjects: &Subjects<C>,
        op: Op,
        data: &'static Data,
    ) -> Result<()> {
        for row in compare(&row, &self.contenders(subjects, op, data), self.plan).await? {
            self.rows.push(&row)?;
        }
        Ok(())
    }

    fn contenders<C: ConnectionLike + Clone + Send + Sync + 'static>(
        &self,
        subjects: &Subjects<C>,
        op: Op,
        data: &'static Data,
    ) -> Vec<Contender> {
        let mut contenders = subjects.contenders(op, data);
        contenders.truncate(2);
        contenders.retain(|(name, _)| self.args.wants_subject(name));
        contenders
    }

    async fn callers<C: ConnectionLike + Clone + Send + Sync + 'static>(
        &mut self,
        subjects: &Subjects<C>,
    ) -> Result<()> {
        let data = Data::new(1, 64);
        data.fill(&subjects.redis_rs).await?;
        for callers in self.points("callers", &[1, 10, 100, 1000, 10_000]) {
            let row = Row { callers: Some(callers), ..row("callers of one hot key") };
            self.push(row, subjects, Op::Get, data).await?;
        }
        Ok(())
    }

    async fn keys<C: ConnectionLike + Clone + Send + Sync + 'static>(
        &mut self,
        subjects: &Subjects<C>,
    ) -> Result<()> {
        for keys in self.points("keys", &[1000, 10_000, 100_000, 1_000_000]) {
            let data = Data::new(keys, 64);
            data.fill(&subjects.redis_rs).await?;
            let row = Row { keys: Some(keys), callers: Some(64), ..row("keys") };
            self.push(row, subjects, Op::Get, data).await?;
        }
        Ok(())
    }

    async fn batches<C: ConnectionLike + Clone + Send + Sync + 'static>(
        &mut self,
        subjects: &Subjects<C>,
    ) -> Result<()> {
        let data = Data::new(100_000, 64);
        data.fill(&subjects.redis_rs).await?;
        for batch in self.points("batch", &[1, 10, 100, 1000, 10_000, 100_000]) {
            for (name, op) in [("mget", Op::Mget(batch)), ("mset", Op::Mset(batch))] {
                let row = Row { batch: Some(batch), callers: Some(1), ..row(name) };
                self.push(row, subjects, op, data).await?;
            }
        }
        Ok(())
    }

    /// All clusters in turn, for what the machine does meanwhile would look like growth.
    async fn primaries(&mut self) -> Result<()> {
        const CALLERS: usize = 64;
        let points = self.points("primaries", &[3, 4, 5, 6]);
        let (mut clusters, mut contenders) = (Vec::new(), Vec::new());
        for &primaries in &points {
            let cluster = Cluster::start(primaries, 0).await?;
            let subjects = Subjects::cluster(&cluster).await?;
            let data = Data::new(10_000, 64);
            data.fill(&subjects.redis_rs).await?;
            contenders.extend(self.contenders(&subjects, Op::Get, data));
            clusters.push((cluster, subjects));
        }
        if contenders.is_empty() {
            return Ok(());
        }
        let samples = interleave(&contenders, CALLERS, Plan::of_budget(&self.args)).await?;
        let each = contenders.len() / points.len();
        let pairs = contenders.chunks(each).zip(samples.chunks(each));
        for (primaries, (contenders, samples)) in points.into_iter().zip(pairs) {
            let row =
                Row { primaries: Some(primaries), callers: Some(CALLERS), ..row("primaries") };
            for row in rows(&row, contenders, samples) {
                self.rows.push(&row)?;
            }
        }
        Ok(())
    }
}

fn row(bench: &str) -> Row {
    Row { suite: "growth", bench: bench.to_owned(), value_bytes: Some(64), ..Row::default() }
}
