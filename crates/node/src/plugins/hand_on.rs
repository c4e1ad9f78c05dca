//! A holder sends files of its plugins, and blobs, to nodes that fetch them.

use super::Job;
use crate::context::{ConnId, Context};
use mutirao_wire::NodeId;
use mutirao_wire::frame::{Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::plugin::{BlobMissing, PluginMessage};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

/// Files under way on one connection.
const A_CONNECTION: usize = 8;
/// Files under way in all.
const IN_ALL: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 4 * DATA_BODY_MAX;

/// Names a transfer: the connection and the asker's number on it.
pub type TransferKey = (ConnId, u32);

/// A piece of a file that a helper thread has read.
#[derive(Debug)]
pub struct Piece {
    key: TransferKey,
    file: File,
    bytes: io::Result<Vec<u8>>,
}

/// Files being sent.
#[derive(Debug, Default)]
pub struct HandOn {
    transfers: BTreeMap<TransferKey, Transfer>,
}

#[derive(Debug)]
struct Transfer {
    peer: NodeId,
    /// `None` while a helper thread reads.
    file: Option<File>,
    offset: u64,
    /// Up to here it is to be sent.
    end: u64,
    total: u64,
}

impl HandOn {
    /// Starts to send `file`, of `total` bytes, the part from `offset` on that has at most `bytes` bytes.
    pub fn start(
        &mut self,
        ctx: &mut Context,
        key: TransferKey,
        peer: NodeId,
        file: File,
        (offset, bytes): (u64, u64),
        total: u64,
    ) {
        let here = self.transfers.keys().filter(|(conn, _)| *conn == key.0).count();
        if here >= A_CONNECTION
            || self.transfers.len() >= IN_ALL
            || offset > total
            || self.transfers.contains_key(&key)
        {
            return refuse(ctx, key);
        }
        let end = offset.saturating_add(bytes).min(total);
        self.transfers.insert(key, Transfer { peer, file: Some(file), offset, end, total });
        self.go_on(ctx, key);
    }

    /// A piece was read: sends it.
    pub fn piece(&mut self, ctx: &mut Context, piece: Piece) {
        let Piece { key, file, bytes } = piece;
        let Some(transfer) = self.transfers.get_mut(&key) else { return };
        let bytes = match bytes {
            Ok(bytes) if !bytes.is_empty() || transfer.offset == transfer.end => bytes,
            other => {
                tracing::warn!("a file cannot be read to its end: {:?}", other.err());
                self.transfers.remove(&key);
                return refuse(ctx, key);
            }
        };
        let mut parts = bytes.chunks(DATA_BODY_MAX).collect::<Vec<_>>();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for part in parts {
            transfer.offset += part.len() as u64;
            let more = transfer.offset < transfer.end;
            if !ctx.conns.put(key.0, chunk_header(key.1, transfer.total, part.len(), more), part) {
                self.transfers.remove(&key);
                return;
            }
        }
        if transfer.offset >= transfer.end {
            self.transfers.remove(&key);
            return;
        }
        transfer.file = Some(file);
        self.go_on(ctx, key);
    }

    /// There is room again on a connection, or it is gone.
    pub fn writable(&mut self, ctx: &mut Context, conn: ConnId) {
        if !ctx.conns.exists(conn) {
            self.transfers.retain(|(other, _), _| *other != conn);
            return;
        }
        let here: Vec<TransferKey> =
            self.transfers.keys().filter(|(other, _)| *other == conn).copied().collect();
        for key in here {
            self.go_on(ctx, key);
        }
    }

    /// Whether files are on their way to `peer`.
    pub fn uses(&self, peer: NodeId) -> bool {
        self.transfers.values().any(|transfer| transfer.peer == peer)
    }

    /// Reads the next piece, if there is room for it.
    fn go_on(&mut self, ctx: &mut Context, key: TransferKey) {
        let Some(transfer) = self.transfers.get_mut(&key) else { return };
        if ctx.conns.room(key.0) == 0 {
            return;
        }
        let Some(file) = transfer.file.take() else { return };
        let offset = transfer.offset;
        let length = (transfer.end - offset).min(READ_BYTES as u64) as usize;
        ctx.jobs.run(move || {
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, offset).map(|()| bytes);
            Job::Piece(Piece { key, file, bytes: read }).into()
        });
    }
}

/// Tells the asker that there is no such file here.
pub fn refuse(ctx: &mut Context, key: TransferKey) {
    let missing = PluginMessage::from(BlobMissing { transfer: key.1 });
    ctx.conns.put_with(key.0, |out| missing.put(out));
}

/// The header of a chunk: `handle` is the transfer, `extent` the length of the whole file, `MORE` on
/// all chunks of the part but the last.
fn chunk_header(transfer: u32, total: u64, part: usize, more: bool) -> Header {
    let mut header = Header::new(Kind::BlobChunk, part);
    header.handle = U32::new(transfer);
    header.flags = U16::new(if more { flags::MORE } else { 0 });
    header.extent = U64::new(total);
    header
}
