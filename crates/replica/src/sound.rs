//! Which messages may be believed: the `raft` crate ends the process over some that no member in its right mind sends,
//! as one does whose disk was lost or brought back from an earlier day.

use crate::store::Store;
use raft::eraftpb::{Message, MessageType};
use raft::{Raft, StateRole};

/// Largest number of an entry or a leadership that is believed: far below the largest that is read from a disk.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// Why nothing follows from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One of another version, or nonsense.
    #[error("these bytes are no message of a member")]
    Unreadable,
    /// Nobody else speaks as this member.
    #[error("it comes from no other member")]
    Stranger,
    /// Counting on from there would overflow, or it names no leadership or entry where there is one.
    #[error("its numbers are none that a log comes to")]
    Numbers,
    /// A log goes from leadership to later leadership.
    #[error("its entries are not in the order of their leaderships")]
    Order,
    /// There is one leader at a time.
    #[error("it says that it leads in term {term}, in which another does")]
    TwoLead {
        /// That leadership.
        term: u64,
    },
    /// The sender believes that this member has entries which it has not.
    #[error(
        "it says that entry {commit} counts here, where there are {last}: was an earlier copy of this member's \
         disk brought back?"
    )]
    Lacking {
        /// Up to where entries are said to count.
        commit: u64,
        /// The last that there is.
        last: u64,
    },
    /// The sender has entries that this member, who leads, has not sent.
    #[error("it says that it has entry {index}, and this member, which leads, has {last}")]
    Ahead {
        /// What it says to have.
        index: u64,
        /// The last that there is.
        last: u64,
    },
}

/// Whether a message makes sense to this member.
pub(crate) fn check(raft: &Raft<Store>, me: u64, members: u64, message: &Message) -> Result<(), Refused> {
    if message.from == me || !(1..=members).contains(&message.from) {
        return Err(Refused::Stranger);
    }
    let base = message.get_snapshot().get_metadata();
    let numbers = [message.term, message.index, message.commit, message.reject_hint, base.index];
    // One of no term counts as the member's own in there.
    if message.term == 0 || numbers.into_iter().any(|number| number > NUMBER_MAX) {
        return Err(Refused::Numbers);
    }
    let kind = message.get_msg_type();
    // Of no leadership is only the place before the first entry.
    let is_place = match kind {
        MessageType::MsgAppend => (message.index == 0) == (message.log_term == 0),
        MessageType::MsgSnapshot => base.index > 0 && base.term > 0,
        _ => true,
    };
    if !is_place || message.entries.iter().any(|entry| entry.term == 0) {
        return Err(Refused::Numbers);
    }
    let first = message.log_term.max(base.term);
    let terms = [first].into_iter().chain(message.entries.iter().map(|entry| entry.term));
    if !terms.chain([message.term]).is_sorted() {
        return Err(Refused::Order);
    }
    let leads = matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
    let known = if raft.state == StateRole::Leader { me } else { raft.leader_id };
    if leads && message.term == raft.term && ![0, message.from].contains(&known) {
        return Err(Refused::TwoLead { term: message.term });
    }
    let last = raft.raft_log.last_index();
    if kind == MessageType::MsgHeartbeat && message.term >= raft.term && message.commit > last {
        return Err(Refused::Lacking { commit: message.commit, last });
    }
    let answers = kind == MessageType::MsgAppendResponse && !message.reject && message.term == raft.term;
    if answers && raft.state == StateRole::Leader && message.index > last {
        return Err(Refused::Ahead { index: message.index, last });
    }
    Ok(())
}
