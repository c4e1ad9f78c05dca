//! Channels and collectives of a group.

use crate::common::Bytes;
use crate::convert::{self, output, reference};
use crate::error::{Code, Error, outcome, value};
use mutirao::group::{Error as GroupError, Group as Inner, Input, Output};
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// `mutirao_group`.
#[derive(Debug)]
pub struct Group {
    pub inner: Inner,
    name: CString,
    program: CString,
    inputs: Vec<Channel>,
    outputs: Vec<Channel>,
    /// Kept open as long as the group, for C has only its number.
    events: OnceLock<Arc<OwnedFd>>,
}

/// `mutirao_channel`: belongs to its group.
#[derive(Debug)]
pub struct Channel {
    end: End,
    group: Inner,
}

#[derive(Debug)]
enum End {
    Input(Input),
    Output(Output),
}

/// `mutirao_place`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub group: *const c_char,
    pub program: *const c_char,
    pub instance: u32,
    pub rank: u32,
    pub processes: u32,
    pub inputs: u32,
    pub outputs: u32,
    pub reserved: u32,
}

impl From<GroupError> for Error {
    fn from(error: GroupError) -> Error {
        use GroupError as E;
        let code = match &error {
            E::NoGroup => Code::NoGroup,
            E::OpenedTwice
            | E::NoChannel { .. }
            | E::Encoding { .. }
            | E::NoCollectives
            | E::Collective(_) => Code::Argument,
            E::GroupLost { .. }
            | E::PeerLost { .. }
            | E::Nonsense { .. }
            | E::Damaged { .. }
            | E::Unrecorded { .. } => Code::PeerLost,
            E::Mixed { .. } | E::MixedHere { .. } => Code::Mode,
            E::TooLong { .. } | E::Huge { .. } => Code::TooLarge,
            E::Ended { .. } => Code::Ended,
            E::TimedOut { .. } | E::Full { .. } => Code::Timeout,
            E::System { .. } => Code::System,
            _ => Code::Internal,
        };
        Error::new(code, &error.to_string())
    }
}

impl Channel {
    fn output(&self) -> Result<&Output, Error> {
        match &self.end {
            End::Output(output) => Ok(output),
            End::Input(_) => Err(Error::argument("an input channel cannot be sent to")),
        }
    }

    fn input(&self) -> Result<&Input, Error> {
        match &self.end {
            End::Input(input) => Ok(input),
            End::Output(_) => Err(Error::argument("an output channel cannot be received from")),
        }
    }
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_open(group: *mut *mut Group) -> *mut Error {
    outcome(|| {
        let place = output(group, "group")?;
        let inner = Inner::open()?;
        let channel = |end| Channel { end, group: inner.clone() };
        let inputs =
            (0..inner.inputs() as u32).map(|number| inner.input(number).map(End::Input).map(channel));
        let outputs =
            (0..inner.outputs() as u32).map(|number| inner.output(number).map(End::Output).map(channel));
        let opened = Group {
            name: convert::c_text(inner.name()),
            program: convert::c_text(inner.program()),
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
            events: OnceLock::new(),
            inner: inner.clone(),
        };
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { place.write(Box::into_raw(Box::new(opened))) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open and not used any more, nor are its channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_close(group: *mut Group) -> *mut Error {
    outcome(|| {
        if group.is_null() {
            return Ok(());
        }
        // SAFETY: not NULL, so `mutirao_group_open` has made it of a box; the rest is the caller's promise.
        let group = unsafe { Box::from_raw(group) };
        Ok(group.inner.clone().close()?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `place` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_place(group: *const Group, place: *mut Place) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let group = unsafe { reference(group, "group") }?;
        let into = output(place, "place")?;
        let found = Place {
            group: group.name.as_ptr(),
            program: group.program.as_ptr(),
            instance: group.inner.instance(),
            rank: group.inner.rank(),
            processes: group.inner.size(),
            inputs: group.inputs.len() as u32,
            outputs: group.outputs.len() as u32,
            reserved: 0,
        };
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(found) };
        Ok(())
    })
}

/// Gives C one of the channels.
///
/// # Safety
/// `into` is NULL or can be written.
unsafe fn give(
    channels: &[Channel],
    direction: &str,
    number: u32,
    into: *mut *mut Channel,
) -> Result<(), Error> {
    let into = output(into, "channel")?;
    let channel = channels.get(number as usize).ok_or_else(|| {
        let count = channels.len();
        Error::argument(&format!(
            "there is no {direction} channel {number}: the application file gives {count}"
        ))
    })?;
    // SAFETY: not NULL; that it can be written is the caller's promise.
    unsafe { into.write(std::ptr::from_ref(channel).cast_mut()) };
    Ok(())
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `channel` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_input(
    group: *const Group,
    number: u32,
    channel: *mut *mut Channel,
) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { give(&reference(group, "group")?.inputs, "input", number, channel) })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `channel` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_output(
    group: *const Group,
    number: u32,
    channel: *mut *mut Channel,
) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { give(&reference(group, "group")?.outputs, "output", number, channel) })
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; `data` has so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_send(
    channel: *const Channel,
    data: *const c_void,
    size: usize,
    timeout_ms: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (channel, message) =
            unsafe { (reference(channel, "channel")?, convert::bytes(data, size, "data")?) };
        let output = channel.output()?;
        let sent = match convert::timeout(timeout_ms) {
            Some(timeout) => output.send_timeout(message, timeout),
            None => output.send(message),
        };
        Ok(sent?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; `data` has so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_post(
    channel: *const Channel,
    data: *const c_void,
    size: usize,
    timeout_ms: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (channel, message) =
            unsafe { (reference(channel, "channel")?, convert::bytes(data, size, "data")?) };
        let output = channel.output()?;
        let mut copy = output.buffer(message.len());
        copy.extend_from_slice(message);
        Ok(output.post_from(&mut copy, convert::timeout(timeout_ms))?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; `message` is NULL or as this library hands bytes out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_post_bytes(
    channel: *const Channel,
    message: *mut Bytes,
    timeout_ms: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let output = unsafe { reference(channel, "channel") }?.output()?;
        let message = self::output(message, "message")?;
        // SAFETY: not NULL; the rest is the caller's promise.
        let message = unsafe { &mut *message };
        // SAFETY: the caller's promise.
        let mut bytes = unsafe { message.take_back() };
        let posted = output.post_from(&mut bytes, convert::timeout(timeout_ms));
        if posted.is_err() {
            *message = Bytes::hand_out(bytes);
        }
        Ok(posted?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; `message` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_receive(
    channel: *const Channel,
    timeout_ms: c_int,
    message: *mut Bytes,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let input = unsafe { reference(channel, "channel") }?.input()?;
        let into = output(message, "message")?;
        let timeout = convert::timeout(timeout_ms);
        let received = input.receive_as(None, timeout)?.ok_or_else(nothing)?;
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(Bytes::hand_out(received)) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; `data` is room for so many bytes; `size` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_receive_into(
    channel: *const Channel,
    data: *mut c_void,
    room: usize,
    timeout_ms: c_int,
    size: *mut usize,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let input = unsafe { reference(channel, "channel") }?.input()?;
        // SAFETY: the caller's promise.
        let into = unsafe { convert::room(data, room, "data") }?;
        let length = input.receive_into_as(into, None, convert::timeout(timeout_ms))?.ok_or_else(nothing)?;
        if !size.is_null() {
            // SAFETY: not NULL; that it can be written is the caller's promise.
            unsafe { size.write(length) };
        }
        Ok(())
    })
}

fn nothing() -> Error {
    Error::new(Code::Timeout, "no message came in the time given")
}

/// See mutirao.h.
///
/// # Safety
/// `channel` is NULL or of an open group; the others are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_stored(
    channel: *const Channel,
    messages: *mut usize,
    bytes: *mut u64,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let stored = unsafe { reference(channel, "channel") }?.output()?.stored();
        if !messages.is_null() {
            // SAFETY: not NULL; that it can be written is the caller's promise.
            unsafe { messages.write(stored.0) };
        }
        if !bytes.is_null() {
            // SAFETY: not NULL; that it can be written is the caller's promise.
            unsafe { bytes.write(stored.1) };
        }
        Ok(())
    })
}

/// Inputs that C lists, and their group.
struct Listed<'a> {
    group: &'a Inner,
    inputs: Vec<&'a Input>,
    /// Where each is in the list.
    places: Vec<usize>,
}

/// Inputs that C lists; NULL is passed over.
///
/// # Safety
/// `inputs` points to so many members, each NULL or a channel of an open group.
unsafe fn listed<'a>(inputs: *const *const Channel, count: usize) -> Result<Listed<'a>, Error> {
    // SAFETY: the caller's promise.
    let members = unsafe { convert::slice(inputs, count, "inputs") }?;
    // SAFETY: the caller's promise.
    let channels = members.iter().map(|member| unsafe { member.as_ref() });
    let (places, channels): (Vec<usize>, Vec<&Channel>) =
        channels.enumerate().filter_map(|(place, channel)| Some((place, channel?))).unzip();
    let group = &channels.first().ok_or_else(|| Error::argument("`inputs` lists no channel"))?.group;
    let inputs = channels.iter().map(|channel| channel.input()).collect::<Result<_, _>>()?;
    Ok(Listed { group, inputs, places })
}

/// See mutirao.h.
///
/// # Safety
/// `inputs` is as for [`listed`]; `index` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_select(
    inputs: *const *const Channel,
    count: usize,
    timeout_ms: c_int,
    index: *mut usize,
) -> *mut Error {
    outcome(|| {
        let into = output(index, "index")?;
        // SAFETY: the caller's promise.
        let Listed { group, inputs, places } = unsafe { listed(inputs, count) }?;
        let found = group.select(&inputs, convert::timeout(timeout_ms))?.ok_or_else(nothing)?;
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(places[found]) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `inputs` is as for [`listed`]; `ready` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_channel_arm(
    inputs: *const *const Channel,
    count: usize,
    ready: *mut c_int,
) -> *mut Error {
    outcome(|| {
        let into = output(ready, "ready")?;
        // SAFETY: the caller's promise.
        let Listed { group, inputs, .. } = unsafe { listed(inputs, count) }?;
        let is_ready = group.arm(&inputs)?;
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(is_ready.into()) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_event_fd(group: *const Group) -> c_int {
    value(-1, || {
        // SAFETY: the caller's promise.
        let Some(group) = (unsafe { group.as_ref() }) else { return -1 };
        match (group.events.get(), group.inner.event_fd()) {
            (Some(events), _) => events.as_raw_fd(),
            (None, Ok(events)) => group.events.get_or_init(|| events).as_raw_fd(),
            (None, Err(_)) => -1,
        }
    })
}
