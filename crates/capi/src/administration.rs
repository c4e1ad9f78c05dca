//! Administration routines: what is in the pool, and orders to its nodes.

use crate::convert::{self, c_text};
use crate::error::{Code, Error, outcome, value};
use crate::pool::Pool;
use mutirao::raw::wire::query::{NodeRow, NodeState, Row, Topic};
use std::ffi::{CString, c_char, c_int};
use std::ptr::null;
use std::time::Duration;

/// Every node that can be reached answers long before.
const ANSWER: Duration = Duration::from_secs(10);

/// `mutirao_node`.
#[repr(C)]
#[derive(Debug)]
pub struct Node {
    pub name: *const c_char,
    pub id: *const c_char,
    pub parent: *const c_char,
    pub slots_total: u32,
    pub slots_free: u32,
    pub load: f64,
    pub up_s: u64,
    pub state: *const c_char,
    pub arch: *const c_char,
    pub confinement: *const c_char,
}

/// `mutirao_node_list`.
#[derive(Debug)]
pub struct NodeList {
    nodes: Vec<Node>,
    /// What the members of `nodes` point to.
    #[expect(dead_code, reason = "only held")]
    texts: Vec<[CString; 5]>,
}

impl NodeList {
    fn new(rows: &[NodeRow]) -> NodeList {
        let texts = rows.iter().map(|row| {
            [
                c_text(&row.node.name),
                c_text(&row.node.id.to_string()),
                c_text(row.parent.as_deref().unwrap_or_default()),
                c_text(&row.arch.to_string()),
                c_text(&row.confinement.level),
            ]
        });
        let texts: Vec<[CString; 5]> = texts.collect();
        let node = |(row, [name, id, parent, arch, confinement]): (&NodeRow, &[CString; 5])| Node {
            name: name.as_ptr(),
            id: id.as_ptr(),
            parent: parent.as_ptr(),
            slots_total: row.slots_total.into(),
            slots_free: row.slots_free.into(),
            load: f64::from(row.load_centi) / 100.0,
            up_s: row.up_s,
            state: match row.state {
                NodeState::Up => c"up",
                NodeState::Draining => c"draining",
                NodeState::Drained => c"drained",
                NodeState::Leaving => c"leaving",
            }
            .as_ptr(),
            arch: arch.as_ptr(),
            confinement: confinement.as_ptr(),
        };
        NodeList { nodes: rows.iter().zip(&texts).map(node).collect(), texts }
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_nodes(pool: *mut Pool, nodes: *mut *mut NodeList) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        let nodes = convert::output(nodes, "nodes")?;
        let list = NodeList::new(&pool.library.nodes()?);
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { nodes.write(Box::into_raw(Box::new(list))) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_node_list_count(list: *const NodeList) -> usize {
    // SAFETY: the caller's promise.
    unsafe { list.as_ref() }.map_or(0, |list| list.nodes.len())
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_node_list_at(list: *const NodeList, index: usize) -> *const Node {
    // SAFETY: the caller's promise.
    unsafe { list.as_ref() }.and_then(|list| list.nodes.get(index)).map_or(null(), std::ptr::from_ref)
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_node_list_delete(list: *mut NodeList) {
    if !list.is_null() {
        // SAFETY: not NULL, so it was made of a box here; the rest is the caller's promise.
        value((), || drop(unsafe { Box::from_raw(list) }));
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_plugin_approve(
    pool: *mut Pool,
    node: *const c_char,
    plugin: *const c_char,
) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { decide(pool, node, plugin, true) })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_plugin_deny(
    pool: *mut Pool,
    node: *const c_char,
    plugin: *const c_char,
) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { decide(pool, node, plugin, false) })
}

/// # Safety
/// The pointers are as the header says.
unsafe fn decide(
    pool: *mut Pool,
    node: *const c_char,
    plugin: *const c_char,
    approve: bool,
) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let pool = unsafe { convert::reference(pool, "pool") }?;
    // SAFETY: the caller's promise.
    let node = unsafe { convert::optional_text(node, "node") }?;
    // SAFETY: the caller's promise.
    let plugin = unsafe { convert::text(plugin, "plugin") }?;
    order(pool, node, plugin, Topic::Approve { plugin: plugin.to_owned(), approve })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_kill(pool: *mut Pool, what: *const c_char) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let what = unsafe { convert::text(what, "what") }?;
        order(pool, None, what, Topic::Kill { what: what.to_owned() })
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_tree_add(
    pool: *mut Pool,
    parent: *const c_char,
    child: *const c_char,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let (parent, child) = unsafe { (convert::text(parent, "parent")?, convert::text(child, "child")?) };
        Ok(pool.library.add_node(parent, child)?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_tree_remove(
    pool: *mut Pool,
    node: *const c_char,
    drain: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let node = unsafe { convert::text(node, "node") }?;
        pool.library.remove_node(node, drain != 0)?;
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_tree_move(
    pool: *mut Pool,
    node: *const c_char,
    parent: *const c_char,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let (node, parent) = unsafe { (convert::text(node, "node")?, convert::text(parent, "parent")?) };
        Ok(pool.library.move_node(node, parent)?)
    })
}

/// Gives an order. The node of this machine signs it where its user has a key.
pub(crate) fn order(pool: &Pool, to: Option<&str>, about: &str, topic: Topic) -> Result<(), Error> {
    let answers = pool.library.query(topic, to.map(str::to_owned), Vec::new(), ANSWER)?;
    let mut refusals = Vec::new();
    for row in answers.rows {
        match row {
            Row::Done { .. } => return Ok(()),
            Row::Failed { node, text } => refusals.push((node, text)),
            _ => {}
        }
    }
    let Some((first, _)) = refusals.first() else {
        let whom = to.map_or("no node of the pool".to_owned(), |node| format!("no node `{node}`"));
        let text = format!("{whom} knows `{about}`; {} did not answer", answers.missing);
        return Err(Error::argument(&text));
    };
    let node = if refusals.len() == 1 { c_text(first) } else { CString::default() };
    let lines: Vec<String> = refusals.iter().map(|(node, text)| format!("{node}: {text}")).collect();
    Err(Error { node, ..Error::new(Code::NotPermitted, &lines.join("\n")) })
}
