//! How replies are read: RESP3, from bytes that arrive in pieces and are not trusted.

use bytes::{Buf, Bytes, BytesMut};

pub(crate) use super::parse::Broken;
use super::parse::{Budget, UNKNOWN_FORM, count, scalar, text};
use super::reply::Reply;

/// Room of the buffer that is read into, and so the length of the longest line.
const ROOM: usize = 64 * 1024;
/// A string of this length or more, of which a part is still to come, gets a buffer of its own,
/// which then becomes the value. Shorter ones are copied out of the common buffer, so that none
/// keeps all of it alive.
const LONG: usize = 16 * 1024;
/// How many arrays, maps and attributes may be inside of each other.
const DEPTH: usize = 32;
/// How much room an announced count of elements gets before the elements arrive.
const AHEAD: usize = 1024;
/// Memory of one reply, in bytes. A fixed amount, because a batch of values that are each within
/// the configured length must fit.
pub(crate) const LIMIT: usize = 1 << 30;
const NO_END: Broken = Broken("a string does not end where it should");

/// Makes replies of the bytes that a server sends.
///
/// Read into [`buffer`](Self::buffer), then take replies with [`next`](Self::next) until there is
/// none. Work and memory are proportional to what has arrived, whatever has been announced.
#[derive(Debug)]
pub(crate) struct Decoder {
    longest: usize,
    read: BytesMut,
    /// Where in `read` the next element begins.
    at: usize,
    /// How many bytes from there on are known to hold no end of a line.
    scanned: usize,
    long: Option<Long>,
    /// The aggregates that are not yet complete, the outermost first.
    open: Vec<Aggregate>,
    budget: Budget,
}

/// A string that is read into a buffer of its own.
#[derive(Debug)]
struct Long {
    kind: u8,
    length: usize,
    /// Has room for the string and the end of its line. It is allocated at once: the system
    /// gives large memory out when it is first written to, so that a length which is announced
    /// and never sent costs only addresses, and no byte is copied for growth.
    body: BytesMut,
}

#[derive(Debug)]
struct Aggregate {
    kind: u8,
    /// How many elements are still to come; never 0 while it is open.
    missing: usize,
    elements: Vec<Reply>,
}

enum Element {
    Complete(Reply),
    /// An aggregate has begun, or attributes have been skipped.
    Opened,
    /// More bytes are needed.
    Partial,
}

impl Decoder {
    /// `longest`: the longest string that a server may send, in bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Self::with_limit(longest, LIMIT)
    }

    /// `limit`: memory of one reply, in bytes.
    pub(crate) fn with_limit(longest: usize, limit: usize) -> Self {
        Self {
            longest: longest.min(limit),
            read: BytesMut::with_capacity(ROOM),
            at: 0,
            scanned: 0,
            long: None,
            open: Vec::new(),
            budget: Budget::new(limit),
        }
    }

    /// Where to read into: it always has room, and as much as should be read at once.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        match &mut self.long {
            Some(long) if long.body.len() < long.size() => &mut long.body,
            _ => {
                // By hand, because `advance` would give up the room before `at`.
                self.read.copy_within(self.at.., 0);
                self.read.truncate(self.read.len() - self.at);
                self.at = 0;
                if self.read.len() == self.read.capacity() {
                    self.read.reserve(ROOM);
                }
                &mut self.read
            }
        }
    }

    /// The next whole reply; `None`: more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Reply>, Broken> {
        loop {
            let element = if self.long.is_some() { self.long_string()? } else { self.element()? };
            match element {
                Element::Complete(reply) => {
                    if let Some(whole) = self.place(reply)? {
                        self.budget.reset();
                        return Ok(Some(whole));
                    }
                }
                Element::Opened => {}
                Element::Partial => return Ok(None),
            }
        }
    }

    /// True when bytes or parts of an unfinished reply are held.
    #[cfg_attr(not(feature = "fuzzing"), allow(dead_code, reason = "fuzzers ask for it"))]
    pub(crate) fn is_midway(&self) -> bool {
        // Whatever has been taken out of the buffer for a reply has been charged for.
        self.at < self.read.len() || self.budget.is_spent()
    }

    fn element(&mut self) -> Result<Element, Broken> {
        let held = self.read.get(self.at..).unwrap_or_default();
        let Some((&kind, rest)) = held.split_first() else { return Ok(Element::Partial) };
        let unseen = rest.get(self.scanned..).unwrap_or_default();
        let Some(end) = unseen.windows(2).position(|pair| pair == b"\r\n") else {
            if !b"+-:$*_,#!=(%~>|".contains(&kind) {
                return Err(UNKNOWN_FORM);
            }
            if held.len() >= ROOM {
                return Err(Broken("a line is too long"));
            }
            // The last byte may be the first half of the line's end.
            self.scanned = rest.len().saturating_sub(1);
            return Ok(Element::Partial);
        };
        let line = rest.get(..self.scanned + end).unwrap_or_default();
        let begin = self.at + 1 + line.len() + 2;
        self.scanned = 0;
        let element = match kind {
            b'$' | b'*' if line == b"-1" => Element::Complete(Reply::Nil),
            b'$' | b'!' | b'=' => {
                let length = count(line)?;
                return self.string(kind, length, begin);
            }
            b'*' | b'~' | b'%' | b'>' | b'|' => {
                let length = count(line)?;
                self.aggregate(kind, length)?
            }
            _ => Element::Complete(scalar(kind, line, &mut self.budget)?),
        };
        self.at = begin;
        Ok(element)
    }

    /// A string whose bytes begin at `begin`. Its first line is read once more when the rest has
    /// come, which is cheaper than to keep it.
    fn string(&mut self, kind: u8, length: usize, begin: usize) -> Result<Element, Broken> {
        if length > self.longest {
            return Err(Broken("a string is longer than permitted"));
        }
        let held = self.read.get(begin..).unwrap_or_default();
        if held.len() < length + 2 {
            if length >= LONG {
                self.budget.charge(length)?;
                let mut body = BytesMut::with_capacity(length + 2);
                body.extend_from_slice(held);
                self.long = Some(Long { kind, length, body });
                self.read.clear();
                self.at = 0;
            }
            return Ok(Element::Partial);
        }
        self.budget.charge(length)?;
        let (body, end) = held.split_at(length);
        if !end.starts_with(b"\r\n") {
            return Err(NO_END);
        }
        let reply = match kind {
            b'$' => Reply::BulkString(Bytes::copy_from_slice(body)),
            _ => text(kind, body, &mut self.budget)?,
        };
        self.at = begin + length + 2;
        Ok(Element::Complete(reply))
    }

    fn aggregate(&mut self, kind: u8, length: usize) -> Result<Element, Broken> {
        if kind == b'>' && !self.open.is_empty() {
            return Err(Broken("a push inside of another reply"));
        }
        let aggregate = Aggregate::new(kind, length, &mut self.budget)?;
        if aggregate.missing == 0 {
            return Ok(aggregate.close()?.map_or(Element::Opened, Element::Complete));
        }
        if self.open.len() == DEPTH {
            return Err(Broken("replies are nested too deeply"));
        }
        self.open.push(aggregate);
        Ok(Element::Opened)
    }

    fn long_string(&mut self) -> Result<Element, Broken> {
        let Some(mut long) = self.long.take_if(|long| long.body.len() >= long.size()) else {
            return Ok(Element::Partial);
        };
        let mut rest = long.body.split_off(long.length);
        if !rest.starts_with(b"\r\n") {
            return Err(NO_END);
        }
        rest.advance(2);
        self.read.extend_from_slice(&rest);
        Ok(Element::Complete(match long.kind {
            b'$' => Reply::BulkString(long.body.freeze()),
            kind => text(kind, &long.body, &mut self.budget)?,
        }))
    }

    /// Puts a complete element where it belongs; what comes out is complete as a whole.
    fn place(&mut self, mut reply: Reply) -> Result<Option<Reply>, Broken> {
        while let Some(mut aggregate) = self.open.pop() {
            aggregate.push(reply);
            if aggregate.missing > 0 {
                self.open.push(aggregate);
                return Ok(None);
            }
            match aggregate.close()? {
                Some(whole) => reply = whole,
                None => return Ok(None),
            }
        }
        Ok(Some(reply))
    }
}

impl Long {
    fn size(&self) -> usize {
        self.length + 2
    }
}

impl Aggregate {
    fn new(kind: u8, length: usize, budget: &mut Budget) -> Result<Self, Broken> {
        let pairs = matches!(kind, b'%' | b'|');
        let missing = length.saturating_mul(if pairs { 2 } else { 1 });
        // A map's elements are there twice while it is closed.
        let cost = missing.saturating_add(1).saturating_mul(if pairs { 2 } else { 1 });
        budget.charge(cost.saturating_mul(size_of::<Reply>()))?;
        Ok(Self { kind, missing, elements: Vec::with_capacity(missing.min(AHEAD)) })
    }

    fn push(&mut self, reply: Reply) {
        if self.elements.len() == self.elements.capacity() {
            // Twice the room, but not more than will be needed.
            self.elements.reserve_exact(self.missing.min(self.elements.len()));
        }
        self.elements.push(reply);
        self.missing = self.missing.saturating_sub(1);
    }

    /// Attributes are dropped: nothing that is sent asks for any.
    fn close(self) -> Result<Option<Reply>, Broken> {
        let mut elements = self.elements.into_iter();
        Ok(match self.kind {
            b'|' => None,
            b'%' => {
                let mut pairs = Vec::with_capacity(elements.len() / 2);
                while let (Some(field), Some(value)) = (elements.next(), elements.next()) {
                    pairs.push((field, value));
                }
                Some(Reply::Map(pairs))
            }
            b'>' => {
                let kind = match elements.next() {
                    Some(Reply::BulkString(kind)) => String::from_utf8_lossy(&kind).into_owned(),
                    Some(Reply::SimpleString(kind)) => kind,
                    _ => return Err(Broken("a push without its kind")),
                };
                Some(Reply::Push { kind, data: elements.collect() })
            }
            _ => Some(Reply::Array(elements.collect())),
        })
    }
}
