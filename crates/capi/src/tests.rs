//! What C sees of the structures, and what an operation in C is given.

use crate::administration::Node;
use crate::application::{Lease, Options, Request, Resource};
use crate::calls::CallOptions;
use crate::common::{Bytes, mutirao_bytes_delete};
use crate::convert::{Sized, sized};
use crate::error::{Code, Error};
use crate::group::Place;
use crate::operation::{
    Operation, ResultSlot, mutirao_result_fail, mutirao_result_reserve, mutirao_result_set,
};
use crate::superstep::Times;
use mutirao::raw::wire::limits::CALL_BYTES_MAX;
use mutirao::raw::wire::stream::failure;
use mutirao::raw::{CallError, CallErrorKind, Failure};
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

/// Size and offsets of a structure in Rust, and the expressions that give them in C.
macro_rules! layout {
    ($rust:ty = $c:literal { $($member:ident),* }) => {
        ($c, vec![
            (size_of::<$rust>(), concat!("sizeof(", $c, ")").to_owned()),
            (align_of::<$rust>(), concat!("_Alignof(", $c, ")").to_owned()),
            $((offset_of!($rust, $member), concat!("offsetof(", $c, ", ", stringify!($member), ")").to_owned()),)*
        ])
    };
}

#[test]
fn structures_are_laid_out_as_in_the_header() {
    let layouts: [(&str, Vec<(usize, String)>); 10] = [
        layout!(Bytes = "mutirao_bytes" { data, size }),
        layout!(Operation = "mutirao_operation" { name, function, flags }),
        layout!(Options = "mutirao_options" {
            size, name, node, libraries, library_count, slots_max, manual, no_embedded, reserved
        }),
        layout!(Request = "mutirao_request" {
            size, count, at_least, memory_mib, layout, exclusive, cores, arch, below, labels, label_count, without,
            without_count, resources, resource_count, hops, reserved, wait, priority, patience_s, limit_s
        }),
        layout!(Resource = "mutirao_resource" { name, amount }),
        layout!(Lease = "mutirao_lease" { id, node, slots, local, ready }),
        layout!(CallOptions = "mutirao_call_options" { size, limit_ms, reserved, done, context }),
        layout!(Place = "mutirao_place" { group, program, instance, rank, processes, inputs, outputs, reserved }),
        layout!(Times = "mutirao_times" { computing_ns, exchanging_ns, waiting_ns, steps, reserved }),
        layout!(Node = "mutirao_node" {
            name, id, parent, slots_total, slots_free, load, up_s, state, arch, confinement
        }),
    ];
    let mut program = String::from("#include <mutirao.h>\n");
    for (_, facts) in &layouts {
        for (rust, c) in facts {
            writeln!(program, "_Static_assert({c} == {rust}, \"{c} is {rust} in Rust\");").unwrap();
        }
    }
    for (code, name) in codes() {
        writeln!(program, "_Static_assert(MUTIRAO_E_{name} == {}, \"{name}\");", code as i32).unwrap();
    }
    writeln!(program, "_Static_assert(MUTIRAO_CALL_BYTES_MAX == {CALL_BYTES_MAX}, \"limit\");").unwrap();
    // No member that a later version adds may lie where an older caller has left whatever there was.
    let ends = [
        (offset_of!(Options, reserved) + size_of::<u32>(), size_of::<Options>()),
        (offset_of!(Request, limit_s) + size_of::<u32>(), size_of::<Request>()),
        (offset_of!(CallOptions, context) + size_of::<*mut c_void>(), size_of::<CallOptions>()),
    ];
    assert!(ends.iter().all(|(end_of_last, size)| end_of_last == size), "padding at an end: {ends:?}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layout.c");
    std::fs::write(&file, program).unwrap();
    let output = Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
        .args(["-std=c11", "-fsyntax-only", concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include")])
        .arg(&file)
        .output()
        .expect("a C compiler is needed, `cc` or what CC names");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn codes() -> [(Code, &'static str); 23] {
    [
        (Code::Argument, "ARGUMENT"),
        (Code::NoNode, "NO_NODE"),
        (Code::Refused, "REFUSED"),
        (Code::NodeLost, "NODE_LOST"),
        (Code::NoSlots, "NO_SLOTS"),
        (Code::Plugin, "PLUGIN"),
        (Code::NoOperation, "NO_OPERATION"),
        (Code::TooLarge, "TOO_LARGE"),
        (Code::Operation, "OPERATION"),
        (Code::WorkerEnded, "WORKER_ENDED"),
        (Code::OutOfMemory, "OUT_OF_MEMORY"),
        (Code::TimeLimit, "TIME_LIMIT"),
        (Code::Cancelled, "CANCELLED"),
        (Code::OutcomeUnknown, "OUTCOME_UNKNOWN"),
        (Code::Timeout, "TIMEOUT"),
        (Code::NotPermitted, "NOT_PERMITTED"),
        (Code::Closed, "CLOSED"),
        (Code::Internal, "INTERNAL"),
        (Code::System, "SYSTEM"),
        (Code::NoGroup, "NO_GROUP"),
        (Code::Mode, "MODE"),
        (Code::Ended, "ENDED"),
        (Code::PeerLost, "PEER_LOST"),
    ]
}

#[test]
fn an_older_caller_gets_defaults_for_what_it_does_not_know() {
    let mut old = Request { count: 5, layout: 1, exclusive: 1, reserved: 0, ..<Request as Sized>::INIT };
    old.size = offset_of!(Request, layout);
    // SAFETY: it is a live structure with its size.
    let read = unsafe { sized(&old, "request") }.unwrap();
    assert_eq!((read.count, read.layout, read.exclusive), (5, 0, 0));

    // One from before there were constraints has none.
    old = Request { count: 5, cores: 0, hops: 3, label_count: 9, ..<Request as Sized>::INIT };
    old.size = offset_of!(Request, arch);
    // SAFETY: it is a live structure with its size.
    let read = unsafe { sized(&old, "request") }.unwrap();
    assert_eq!((read.count, read.hops, read.label_count), (5, -1, 0));

    // A newer caller's further members are passed over.
    #[repr(C)]
    struct Newer(Request, [u64; 4]);
    let mut newer = Newer(Request { count: 6, ..<Request as Sized>::INIT }, [u64::MAX; 4]);
    newer.0.size = size_of::<Newer>();
    // SAFETY: it is a live structure with its size.
    let read = unsafe { sized((&raw const newer).cast::<Request>(), "request") }.unwrap();
    assert_eq!((read.count, read.exclusive), (6, 0));

    old.size = 0;
    // SAFETY: it is a live structure with its size.
    assert_eq!(unsafe { sized(&old, "request") }.unwrap_err().code, Code::Argument);
}

/// Calls an operation as the worker does.
fn call(function: crate::operation::Function, argument: &[u8]) -> Result<Vec<u8>, Failure> {
    let operation = Operation { name: c"test".as_ptr(), function: Some(function), flags: 0 };
    // SAFETY: a name, and a function that may be called.
    let entry = unsafe { operation.entry() }.unwrap();
    let mut result = Vec::new();
    (entry.run)(argument, &mut result).map(|()| result)
}

#[test]
fn arguments_are_aligned_wherever_they_lie() {
    unsafe extern "C-unwind" fn check(arg: *const c_void, size: usize, result: *mut ResultSlot) -> c_int {
        if arg.is_null() || !arg.addr().is_multiple_of(16) {
            return 1;
        }
        // SAFETY: so the argument and the result are to be used.
        unsafe { mutirao_result_set(result, arg, size) }
    }
    let memory: Vec<u8> = (0..200).collect();
    for start in 0..32 {
        for length in [0, 1, 15, 16, 17, 100] {
            let argument = &memory[start..start + length];
            assert_eq!(call(check, argument).unwrap(), argument);
        }
    }
}

#[test]
fn results_can_be_set_reserved_and_refused() {
    unsafe extern "C-unwind" fn nothing(_: *const c_void, _: usize, _: *mut ResultSlot) -> c_int {
        0
    }
    assert_eq!(call(nothing, b"x").unwrap(), b"");

    unsafe extern "C-unwind" fn reserve(_: *const c_void, size: usize, result: *mut ResultSlot) -> c_int {
        // SAFETY: the result is the one given; the room is as long as was asked for.
        unsafe {
            let room = mutirao_result_reserve(result, size).cast::<u8>();
            assert!(!room.is_null() && room.addr().is_multiple_of(16));
            std::slice::from_raw_parts_mut(room, size).fill(7);
        }
        0
    }
    assert_eq!(call(reserve, b"abc").unwrap(), [7, 7, 7]);
    assert_eq!(call(reserve, b"").unwrap(), b"");

    unsafe extern "C-unwind" fn swell(_: *const c_void, _: usize, result: *mut ResultSlot) -> c_int {
        // SAFETY: the result is the one given.
        let room = unsafe { mutirao_result_reserve(result, CALL_BYTES_MAX as usize + 1) };
        assert!(room.is_null());
        0
    }
    assert_eq!(call(swell, b"").unwrap_err().code, failure::RESULT_TOO_LARGE);

    unsafe extern "C-unwind" fn settle_for_less(
        _: *const c_void,
        _: usize,
        result: *mut ResultSlot,
    ) -> c_int {
        // SAFETY: the result is the one given; too much is refused before it is read.
        unsafe {
            assert_ne!(mutirao_result_set(result, c"".as_ptr().cast(), usize::MAX), 0);
            mutirao_result_set(result, c"less".as_ptr().cast(), 4)
        }
    }
    assert_eq!(call(settle_for_less, b"").unwrap(), b"less");
}

#[test]
fn the_first_failure_counts() {
    unsafe extern "C-unwind" fn fail(_: *const c_void, _: usize, result: *mut ResultSlot) -> c_int {
        // SAFETY: the result is the one given.
        unsafe {
            assert_ne!(mutirao_result_fail(result, 7, c"first".as_ptr()), 0);
            mutirao_result_fail(result, 8, c"second".as_ptr());
            mutirao_result_set(result, c"late".as_ptr().cast(), 4)
        }
    }
    assert_eq!(call(fail, b"").unwrap_err(), Failure::own(7, "first"));

    unsafe extern "C-unwind" fn just_return(_: *const c_void, _: usize, _: *mut ResultSlot) -> c_int {
        -5
    }
    assert_eq!(call(just_return, b"").unwrap_err().code, failure::OPERATION | 5);
}

#[test]
fn tables_are_checked() {
    unsafe extern "C-unwind" fn nothing(_: *const c_void, _: usize, _: *mut ResultSlot) -> c_int {
        0
    }
    let good = Operation { name: c"a".as_ptr(), function: Some(nothing), flags: 1 };
    // SAFETY: for all of them: names are zero-terminated or NULL, functions may be called.
    unsafe {
        assert!(good.entry().unwrap().repeatable);
        assert!(Operation { name: std::ptr::null(), ..good }.entry().is_err());
        assert!(Operation { function: None, ..good }.entry().is_err());
        assert!(Operation { flags: 2, ..good }.entry().is_err());
        assert!(Operation { name: c"\xff".as_ptr(), ..good }.entry().is_err());
    }
}

#[test]
fn bytes_handed_out_end_with_a_zero_and_can_be_deleted_twice() {
    for length in [0, 1, 100] {
        let mut bytes = Bytes::hand_out(vec![5; length]);
        assert_eq!(bytes.size, length);
        // SAFETY: the byte after the last is there, as promised.
        assert_eq!(unsafe { bytes.data.cast::<u8>().add(length).read() }, 0);
        // SAFETY: as handed out, then as left by the first.
        unsafe {
            mutirao_bytes_delete(&mut bytes);
            mutirao_bytes_delete(&mut bytes);
        }
        assert!(bytes.data.is_null() && bytes.size == 0);
    }
}

#[test]
fn an_operations_own_code_and_node_reach_the_error() {
    let kind = CallErrorKind::Operation(7);
    let error: Error = CallError { kind, text: "no\0ne".into(), node: Some("birch".into()) }.into();
    assert_eq!((error.code, error.operation_code, error.node.as_c_str()), (Code::Operation, 7, c"birch"));
    assert!(error.text.to_string_lossy().contains("no\u{fffd}ne"));
}
