//! Application routines about the pool and its leases; those about calls are in `calls`.

use crate::common::Bytes;
use crate::convert::{self, Sized, c_text};
use crate::error::{Error, outcome, value};
use crate::pool::Pool;
use mutirao::raw::wire::limits::WANT_MAX;
use mutirao::raw::wire::node::{self, Arch, Bundle, Layout};
use mutirao::raw::wire::wait::Wait;
use mutirao::raw::{self, LeaseKey, LeaseState, Private, Slots, note_text};
use std::ffi::{CString, c_char, c_int};
use std::ptr::null;
use std::time::Duration;

/// `mutirao_options`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub size: usize,
    pub name: *const c_char,
    pub node: *const c_char,
    pub libraries: *const *const c_char,
    pub library_count: usize,
    pub slots_max: u32,
    pub manual: c_int,
    pub no_embedded: c_int,
    pub slots_min: u32,
    pub idle_ms: u32,
    pub reserved: u32,
}

// SAFETY: as the trait demands.
unsafe impl Sized for Options {
    const INIT: Options = Options {
        size: size_of::<Options>(),
        name: null(),
        node: null(),
        libraries: null(),
        library_count: 0,
        slots_max: 0,
        manual: 0,
        no_embedded: 0,
        slots_min: 0,
        idle_ms: 0,
        reserved: 0,
    };
}

impl Options {
    fn limits(&self, max: u32) -> Slots {
        let Slots::Auto { max: usual, idle: usual_idle, .. } = Slots::default() else { return Slots::ByHand };
        let idle = match self.idle_ms {
            0 => usual_idle,
            idle_ms => Duration::from_millis(idle_ms.into()),
        };
        let max = if max == 0 { usual.max(self.slots_min) } else { max };
        Slots::Auto { min: self.slots_min.min(max), max, idle }
    }

    /// # Safety
    /// The pointers are as the header says.
    unsafe fn translate(&self) -> Result<raw::Options, Error> {
        // SAFETY: the caller's promise.
        let libraries = unsafe { convert::slice(self.libraries, self.library_count, "options->libraries") }?;
        // SAFETY: the caller's promise, for each.
        let libraries =
            libraries.iter().map(|path| unsafe { convert::path(*path, "member of options->libraries") });
        // SAFETY: the caller's promise.
        let name = unsafe { convert::optional_text(self.name, "options->name") }?;
        // SAFETY: the caller's promise.
        let node = unsafe { convert::optional_text(self.node, "options->node") }?;
        Ok(raw::Options {
            name: name.map(str::to_owned),
            node: node.map(str::to_owned),
            private: if self.no_embedded == 0 { Private::IfNeeded } else { Private::Never },
            libraries: libraries.collect::<Result<_, _>>()?,
            slots: match (self.manual != 0, self.slots_max) {
                (true, _) => Slots::ByHand,
                (false, max) => self.limits(max),
            },
            ..raw::Options::default()
        })
    }
}

/// `mutirao_request`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub size: usize,
    pub count: u32,
    pub at_least: u32,
    pub memory_mib: u32,
    pub layout: c_int,
    pub exclusive: c_int,
    pub cores: u32,
    pub arch: *const c_char,
    pub below: *const c_char,
    pub labels: *const *const c_char,
    pub label_count: usize,
    pub without: *const *const c_char,
    pub without_count: usize,
    pub resources: *const Resource,
    pub resource_count: usize,
    pub hops: c_int,
    pub reserved: u32,
    pub wait: c_int,
    pub priority: c_int,
    pub patience_s: u32,
    pub limit_s: u32,
}

/// `mutirao_resource`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    pub name: *const c_char,
    pub amount: u32,
}

// SAFETY: as the trait demands.
unsafe impl Sized for Request {
    const INIT: Request = Request {
        size: size_of::<Request>(),
        count: 1,
        at_least: 0,
        memory_mib: 0,
        layout: 0,
        exclusive: 0,
        cores: 0,
        arch: null(),
        below: null(),
        labels: null(),
        label_count: 0,
        without: null(),
        without_count: 0,
        resources: null(),
        resource_count: 0,
        hops: -1,
        reserved: 0,
        wait: 0,
        priority: 0,
        patience_s: 0,
        limit_s: 0,
    };
}

impl Request {
    /// # Safety
    /// The pointers are as the header says.
    unsafe fn translate(&self) -> Result<raw::Request, Error> {
        if self.count == 0 || self.count > WANT_MAX {
            let text = format!("request->count is {}; 1 to {WANT_MAX} leases can be asked for", self.count);
            return Err(Error::argument(&text));
        }
        if self.at_least > self.count {
            let text = format!("request->at_least is {}, more than count, {}", self.at_least, self.count);
            return Err(Error::argument(&text));
        }
        let layout = match self.layout {
            0 => Layout::Near,
            1 => Layout::Spread,
            other => return Err(Error::argument(&format!("request->layout is {other}, which is no layout"))),
        };
        let slots = u16::try_from(self.cores.max(1)).map_err(|_| {
            Error::argument(&format!("request->cores is {}; no node has more than {}", self.cores, u16::MAX))
        })?;
        let hops = match self.hops {
            ..0 => None,
            hops => Some(u8::try_from(hops).unwrap_or(u8::MAX)),
        };
        // SAFETY: the caller's promise, here and below.
        let arch = match unsafe { convert::optional_text(self.arch, "request->arch") }? {
            None => None,
            Some(name) => Some(arch(name)?),
        };
        // SAFETY: see above.
        let below = unsafe { convert::optional_text(self.below, "request->below") }?.map(str::to_owned);
        // SAFETY: see above.
        let labels = unsafe { convert::texts(self.labels, self.label_count, "request->labels") }?;
        // SAFETY: see above.
        let without = unsafe { convert::texts(self.without, self.without_count, "request->without") }?;
        // SAFETY: see above.
        let listed = unsafe { convert::slice(self.resources, self.resource_count, "request->resources") }?;
        let mut resources = Vec::new();
        for resource in listed {
            // SAFETY: see above.
            let name = unsafe { convert::text(resource.name, "name of a member of request->resources") }?;
            resources.push(node::Resource { name: name.into(), amount: resource.amount });
        }
        let Ok(priority) = i8::try_from(self.priority) else {
            let text = format!("request->priority is {}; it is -128 to 127", self.priority);
            return Err(Error::argument(&text));
        };
        let patience_ms = (self.patience_s > 0).then(|| u64::from(self.patience_s) * 1000);
        let wait = (self.wait != 0).then_some(Wait { priority, patience_ms });
        let bundle = Bundle {
            slots,
            memory_mib: self.memory_mib,
            resources,
            exclusive: self.exclusive != 0,
            limit_s: (self.limit_s > 0).then_some(self.limit_s),
            ..Bundle::default()
        };
        let all = raw::Request::slots(self.count);
        Ok(raw::Request {
            at_least: self.at_least,
            bundle,
            layout,
            arch,
            labels,
            without,
            below,
            hops,
            wait,
            ..all
        })
    }
}

/// The architecture of this name.
fn arch(name: &str) -> Result<Arch, Error> {
    let all = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64, Arch::Powerpc64le];
    let found = all.into_iter().find(|arch| arch.to_string() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = all.iter().map(Arch::to_string).collect();
        Error::argument(&format!("request->arch is `{name}`, which is none of {}", names.join(", ")))
    })
}

/// `mutirao_lease`.
#[repr(C)]
#[derive(Debug)]
pub struct Lease {
    pub id: u64,
    pub node: *const c_char,
    pub slots: u32,
    pub local: c_int,
    pub ready: c_int,
}

/// `mutirao_lease_list`.
#[derive(Debug)]
pub struct LeaseList {
    leases: Vec<Lease>,
    /// What `Lease::node` points to.
    #[expect(dead_code, reason = "only held")]
    names: Vec<CString>,
}

impl LeaseList {
    fn new(leases: &[raw::Lease]) -> LeaseList {
        let names: Vec<CString> = leases.iter().map(|lease| c_text(&lease.lender.name)).collect();
        let lease = |(lease, name): (&raw::Lease, &CString)| Lease {
            id: lease.key.0.into(),
            node: name.as_ptr(),
            slots: lease.slots.into(),
            local: lease.local.into(),
            ready: (lease.state == LeaseState::Ready).into(),
        };
        LeaseList { leases: leases.iter().zip(&names).map(lease).collect(), names }
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_open(options: *const Options, pool: *mut *mut Pool) -> *mut Error {
    outcome(|| {
        let pool = convert::output(pool, "pool")?;
        // SAFETY: the caller's promise.
        let options = unsafe { convert::sized(options, "options") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { options.translate() }?;
        let opened = Box::new(Pool::open(options)?);
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { pool.write(Box::into_raw(opened)) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `pool` is NULL or open, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_close(pool: *mut Pool) {
    if !pool.is_null() {
        // SAFETY: not NULL, so `mutirao_open` has made it of a box; the rest is the caller's promise.
        value((), || unsafe { Box::from_raw(pool) }.close());
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_allocate(
    pool: *mut Pool,
    request: *const Request,
    granted: *mut *mut LeaseList,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let request =
            unsafe { convert::reference(request, "request").and_then(|r| convert::sized(r, "request")) }?;
        // SAFETY: the caller's promise.
        let request = unsafe { request.translate() }?;
        let keys = pool.library.allocate(&request)?.leases;
        if !granted.is_null() {
            let mut leases = pool.library.leases();
            leases.retain(|lease| keys.contains(&lease.key));
            // SAFETY: not NULL; the rest is the caller's promise.
            unsafe { granted.write(Box::into_raw(Box::new(LeaseList::new(&leases)))) };
        }
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_release(pool: *mut Pool, ids: *const u64, count: usize) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let ids = unsafe { convert::slice(ids, count, "ids") }?;
        let keys: Vec<LeaseKey> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).map(LeaseKey).collect();
        Ok(pool.library.release(&keys)?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_leases(pool: *mut Pool, leases: *mut *mut LeaseList) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        let leases = convert::output(leases, "leases")?;
        let list = LeaseList::new(&pool.library.leases());
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { leases.write(Box::into_raw(Box::new(list))) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_lease_list_count(list: *const LeaseList) -> usize {
    // SAFETY: the caller's promise.
    unsafe { list.as_ref() }.map_or(0, |list| list.leases.len())
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_lease_list_at(list: *const LeaseList, index: usize) -> *const Lease {
    // SAFETY: the caller's promise.
    unsafe { list.as_ref() }.and_then(|list| list.leases.get(index)).map_or(null(), std::ptr::from_ref)
}

/// See mutirao.h.
///
/// # Safety
/// `list` is NULL or a list that was not deleted and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_lease_list_delete(list: *mut LeaseList) {
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
pub unsafe extern "C" fn mutirao_notes(pool: *mut Pool, text: *mut Bytes) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        let text = convert::output(text, "text")?;
        let lines: String = pool.library.notes().iter().map(|note| note_text(note) + "\n").collect();
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { text.write(Bytes::hand_out(lines.into_bytes())) };
        Ok(())
    })
}
