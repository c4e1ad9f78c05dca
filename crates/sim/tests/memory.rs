//! What one node of a large pool takes, counted at the allocator.

use mutirao_sim::Trial;
use mutirao_tree::Core;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of what it has given out.
struct Counting;

static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// What an allocator takes for so many bytes: a word of its own, and a multiple of 16.
fn taken(bytes: usize) -> usize {
    ((bytes + 8).next_multiple_of(16)).max(32)
}

// SAFETY: all is the system's allocator's; counting changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        GIVEN.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        GIVEN.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of this very function, and what it gives back came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_core_in_a_large_pool_takes_at_most_4_kilobytes() {
    const NODES: usize = 20_000;
    let (mut world, _) = Trial { wave: 1000, ..Trial::regular(NODES, 16) }.form().unwrap();
    let before = GIVEN.load(Ordering::Relaxed);
    for node in &mut world.nodes {
        node.core = None;
    }
    let heap = (before - GIVEN.load(Ordering::Relaxed)) / NODES;
    let all = heap + size_of::<Core>();
    println!(
        "{all} bytes a node: {} in place, {heap} on the heap; {} the simulator's",
        size_of::<Core>(),
        GIVEN.load(Ordering::Relaxed) / NODES - size_of::<Core>()
    );
    assert!(all <= 4096, "{all} bytes a node, {heap} of them on the heap");
}
