use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;

use super::Reply;

/// The user that the kit itself logs in as.
pub(super) const ADMIN: &str = "test-server-admin";

/// A connection of the kit itself, through the server's socket file: it works whatever becomes
/// of TLS, passwords and ports.
pub(super) struct Admin(BufStream<UnixStream>);

impl Admin {
    pub(super) async fn open(path: &std::path::Path, password: &str) -> io::Result<Self> {
        let mut admin = Self(BufStream::new(UnixStream::connect(path).await?));
        match admin.call(&[b"AUTH", ADMIN.as_bytes(), password.as_bytes()]).await? {
            Reply::Refused(text) => Err(io::Error::other(text)),
            _ => Ok(admin),
        }
    }

    pub(super) async fn call(&mut self, command: &[&[u8]]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&request).await?;
        self.0.flush().await?;
        self.read().await
    }

    async fn read(&mut self) -> io::Result<Reply> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await?;
        let Some((kind, rest)) = line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        let number =
            || text.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        match kind {
            b'+' => Ok(Reply::Bytes(text.into_bytes())),
            b'-' => Ok(Reply::Refused(text)),
            b':' => Ok(Reply::Int(number()?)),
            b'$' => {
                let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Ok(Reply::Bytes(bytes))
            }
            b'*' => {
                let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
                let mut items = Vec::new();
                for _ in 0..length {
                    items.push(Box::pin(self.read()).await?);
                }
                Ok(Reply::Array(items))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
