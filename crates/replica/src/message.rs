//! What members say to each other, as bytes. A form of its own, so that what comes from outside is read by the same
//! decoder as everything else here.

use crate::line::Point;
use crate::mend;
use crate::sound::Refused;
use crate::store::snapshot;
use raft::eraftpb::{Entry, Message, MessageType};
use serde::{Deserialize, Serialize};

/// Kinds that travel, in the order of their numbers. Frozen.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgTimeoutNow,
    // Of its entries the last is named, and what is said of them is the context.
    MessageType::MsgSnapshot,
];

/// A message as it travels.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) kind: u8,
    pub(crate) term: u64,
    pub(crate) log_term: u64,
    pub(crate) index: u64,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    pub(crate) reject: bool,
    pub(crate) reject_hint: u64,
    pub(crate) priority: i64,
    pub(crate) context: Vec<u8>,
    /// Term and content; they follow `index`.
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
}

/// Whether whoever sent a message needs others that take part: it asks for a vote, or has lost something.
pub fn needs_others(bytes: &[u8]) -> bool {
    let kind = bytes.first().and_then(|kind| KINDS.get(usize::from(*kind)));
    matches!(kind, Some(MessageType::MsgRequestVote | MessageType::MsgRequestPreVote))
        || mend::is_question(bytes)
}

/// The message as bytes; `None` for one that is not for others.
pub(crate) fn encode(message: &Message) -> Option<Vec<u8>> {
    let kind = KINDS.iter().position(|kind| *kind == message.get_msg_type())? as u8;
    let entry = |entry: &Entry| (entry.term, entry.data.to_vec());
    let offered = message.get_snapshot();
    let (log_term, index, context) = match message.get_msg_type() {
        MessageType::MsgSnapshot => {
            (offered.get_metadata().term, offered.get_metadata().index, &offered.data)
        }
        _ => (message.log_term, message.index, &message.context),
    };
    let said = Said {
        kind,
        term: message.term,
        log_term,
        index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        context: context.to_vec(),
        entries: message.entries.iter().map(entry).collect(),
    };
    postcard::to_stdvec(&said).ok()
}

/// The message that member `from` sent to member `to`, of so many.
pub(crate) fn decode(from: u64, to: u64, members: u64, bytes: &[u8]) -> Result<Message, Refused> {
    let said: Said = postcard::from_bytes(bytes).map_err(|_| Refused::Unreadable)?;
    let mut message = Message { from, to, term: said.term, ..Message::default() };
    let kind = *KINDS.get(usize::from(said.kind)).ok_or(Refused::Unreadable)?;
    message.set_msg_type(kind);
    if kind == MessageType::MsgSnapshot {
        let base = Point { index: said.index, term: said.log_term };
        message.set_snapshot(snapshot(base, said.context, (1..=members).collect()));
        return Ok(message);
    }
    (message.log_term, message.index) = (said.log_term, said.index);
    (message.commit, message.commit_term) = (said.commit, said.commit_term);
    (message.reject, message.reject_hint) = (said.reject, said.reject_hint);
    (message.priority, message.context) = (said.priority, said.context.into());
    let mut entries = Vec::with_capacity(said.entries.len());
    for (place, (term, data)) in said.entries.into_iter().enumerate() {
        let index = said.index.checked_add(1 + place as u64).ok_or(Refused::Numbers)?;
        entries.push(Entry { term, index, data: data.into(), ..Entry::default() });
    }
    message.entries = entries.into();
    Ok(message)
}
