//! From options to a node that listens.

use super::charter::Rules;
use super::joining::Joining;
use super::placing::Placing;
use super::seeking::Seeking;
use super::{Daemon, Node, Stop, key};
use crate::authority::{self, Rights};
use crate::capacity::capacity;
use crate::charter::{Charters, Denied};
use crate::clients::Clients;
use crate::context::{Conns, Context, Jobs, Owner, token};
use crate::error::Error;
use crate::groups::Groups;
use crate::lender::Lender;
use crate::links::{self, Links};
use crate::members::Members;
use crate::options::{Config, JoinTarget, Options, Paths};
use crate::pipes::Pipes;
use crate::plugins::Plugins;
use crate::presence::Presence;
use crate::runtime::{self, Place};
use crate::streams::Streams;
use crate::sys;
use crate::visits::Visits;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Poll, Waker};
use mutirao_tree::{Core, Policy, Settings};
use mutirao_trust::{Home, Identity, Name, Pool};
use mutirao_wire::limits::PROTOCOL;
use mutirao_wire::link::{Me, Pace};
use mutirao_wire::{Incarnation, NodeId, NodeRef};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Who the node is: a member of a pool, or nobody in particular.
struct Who {
    id: NodeId,
    incarnation: Incarnation,
    member: Option<Member>,
}

struct Member {
    identity: Arc<Identity>,
    pool: Pool,
    user: Option<Identity>,
    lock: OwnedFd,
}

impl Node {
    /// Makes a node: reads its identity, claims its name, listens. Nothing of it is left behind if
    /// that fails, but a grown incarnation.
    pub fn start(mut options: Options) -> Result<Node, Error> {
        if let Err(error) =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        {
            tracing::warn!("other processes of this user may look into this one: {error}");
        }
        set_own_limits();
        let uid = rustix::process::geteuid().as_raw();
        let name = Name::new(&options.name)?;
        let own_state = match options.embedded {
            Some(_) => options.state.clone(),
            None => options.state.join("nodes").join(name.as_str()),
        };
        let config = Config::load(&[own_state.join("node.toml"), options.state.join("node.toml")])?;
        let local_user = sys::user_name(uid);
        let who = match options.embedded {
            Some(_) => nobody(&own_state)?,
            None => member(&options.state, &own_state, &name, &config, &local_user)?,
        };

        let poll = Poll::new().map_err(Error::kernel("a place to wait for connections"))?;
        let registry = poll.registry();
        let waker = Waker::new(registry, token(Owner::Daemon, key::WAKER));
        let waker = Arc::new(waker.map_err(Error::kernel("a way to be woken"))?);

        let pool = who.member.as_ref().map(|member| member.pool.clone());
        let (mut place, mut local) = (None, None);
        if let Some(pool) = &pool {
            let (claimed, listener) = Place::claim(&options.runtime, pool.id(), name.as_str())?;
            let mut listener = UnixListener::from_std(listener);
            registry
                .register(&mut listener, token(Owner::Daemon, key::LOCAL), Interest::READABLE)
                .map_err(Error::kernel("waiting for programs"))?;
            (place, local) = (Some(claimed), Some(listener));
        }
        let (listeners, addresses) = match &pool {
            Some(_) => listen(registry, &options.listen, &config)?,
            None => (Vec::new(), Vec::new()),
        };
        let me = NodeRef {
            id: who.id,
            incarnation: who.incarnation,
            name: name.as_str().into(),
            addresses: if config.advertise.is_empty() { addresses } else { config.advertise.clone() },
        };
        if let (Some(place), Some(pool)) = (&place, &pool) {
            place.publish(&me, pool.id(), pool.name().as_str())?;
        }

        let pool_runtime = match &pool {
            Some(pool) => runtime::pool_directory(&options.runtime, pool.id()),
            None => own_state.clone(),
        };
        let paths = Paths {
            cache: options.state.join("cache"),
            spool: own_state.join("spool"),
            state: own_state,
            runtime: pool_runtime.clone(),
        };
        let local_user = format!("{local_user}@{}", me.name);
        let user = who.member.as_ref().and_then(|member| member.user.as_ref());
        let owner = config.owner.clone().or_else(|| user.map(|user| user.me().name.as_str().to_owned()));
        let denied = Denied::default();
        let rights = Rights {
            pool: pool.clone(),
            me: me.id,
            owner: owner.unwrap_or_else(|| local_user.clone()),
            local_user,
            denied: denied.clone(),
        };
        let links = match &who.member {
            None => None,
            Some(member) => {
                let me = Me {
                    node: me.clone(),
                    pool: member.pool.id(),
                    machine: links::machine(),
                    protocol: PROTOCOL,
                    pace: Pace::default(),
                };
                let links =
                    Links::new(member.identity.clone(), me, config.max_links, config.max_data_connections);
                Some(links.map_err(|refusal| Error::Identity { name: name.as_str().into(), refusal })?)
            }
        };
        let mut joins = options.join.clone();
        joins.extend(config.join.iter().map(|text| JoinTarget::parse(text)));
        joins.retain(|target| !matches!(target, JoinTarget::Name(own) if *own == me.name));

        let registry = registry.try_clone().map_err(Error::kernel("a place to wait for connections"))?;
        let mut ctx = Context {
            now: sys::now(),
            me: me.clone(),
            paths,
            config,
            spin: options.spin,
            conns: Conns::new(),
            jobs: Jobs::new(waker.clone()),
            actions: Vec::new(),
            registry,
            peers: HashMap::new(),
            bound: HashMap::new(),
            piped: HashMap::new(),
        };
        let charters = pool.as_ref().map(|pool| Charters::load(&ctx.paths.state, pool));
        let presence = Presence::of(&ctx.config.lend, &ctx.paths.state.join("node.toml"))?;
        let plugins = Plugins::new(&mut ctx)?;
        let lender = Lender::new(&mut ctx)?;
        let settings = Settings {
            fan_out: options.fan_out.unwrap_or(Settings::default().fan_out),
            ..Settings::default()
        };
        let capacity = capacity(&ctx.config, &options)?;
        let verify = authority::verifier(pool.clone(), denied.clone());
        let pipes = Pipes::new(me.id);
        let members = Members::load(me.id, &ctx.paths.state, &options.state, &options.runtime, ctx.now);
        let guest_pipes = me.incarnation.0 << 16;
        let core = Core::new(me, settings.clone(), capacity, Policy::default(), verify);
        let signals = if options.signals { Some(sys::end_signals()?) } else { None };
        if let Some(signals) = &signals {
            ctx.watch(signals.as_fd(), Owner::Daemon, key::SIGNALS, Interest::READABLE)
                .map_err(Error::kernel("waiting for signals"))?;
        }
        let ready = options.ready.take().map(|ready| (ctx.now + options.join_wait, ready));
        let (user, lock) = match who.member {
            Some(member) => (member.user, Some(member.lock)),
            None => (None, None),
        };
        let mut daemon = Daemon {
            started: ctx.now,
            tidied: ctx.now,
            accept_again: None,
            ctx,
            core,
            outputs: Vec::new(),
            links,
            clients: Clients::default(),
            groups: Groups::default(),
            streams: Streams::default(),
            pipes,
            members,
            visits: Visits::default(),
            aside: Vec::new(),
            lender,
            plugins,
            rights,
            rules: Rules {
                charters,
                denied,
                started: settings,
                links_due: false,
                due: None,
                turned_away: None,
            },
            presence,
            user,
            uid,
            pool: pool.as_ref().map(Pool::id),
            administration: Default::default(),
            measuring: Default::default(),
            guest_pipes,
            placing: Placing::default(),
            seeking: Seeking::default(),
            joining: Joining::new(joins, options.here, pool_runtime),
            listeners,
            local,
            place,
            only: None,
            _signals: signals,
            stop: Stop { wanted: Arc::new(AtomicBool::new(false)), waker },
            leaving: None,
            left: false,
            unused: Default::default(),
            ready,
            _identity_lock: lock,
        };
        daemon.begin_charter();
        daemon.restore_lending();
        if let Some(socket) = options.embedded {
            daemon.only = Some(only_program(&mut daemon, socket)?);
        }
        Ok(Node { poll, daemon })
    }
}

fn only_program(daemon: &mut Daemon, socket: UnixStream) -> Result<crate::conn::ConnId, Error> {
    let path = PathBuf::from("the program's socket");
    socket.set_nonblocking(true).map_err(Error::file("cannot use", &path))?;
    let taken = daemon.take_program(mio::net::UnixStream::from_std(socket));
    let taken = taken.map_err(Error::file("cannot use", &path))?;
    taken.ok_or_else(|| Error::file("cannot use", &path)(io::ErrorKind::PermissionDenied.into()))
}

/// A node of no pool: an identity for once.
fn nobody(state: &Path) -> Result<Who, Error> {
    make_directory(state)?;
    Ok(Who { id: NodeId(sys::random()?), incarnation: Incarnation::next(None, sys::unix_ms()), member: None })
}

fn member(state: &Path, own: &Path, name: &Name, config: &Config, local_user: &str) -> Result<Who, Error> {
    let home = Home::at(state);
    let identity = Arc::new(home.node(name)?);
    // Two daemons of one identity would take each other's links away.
    let lock = runtime::lock(&own.join("lock"), name.as_str())?;
    let user = authority::own_user(&home, config.owner.as_deref(), local_user)?;
    Ok(Who {
        id: identity.me().node,
        incarnation: next_incarnation(own)?,
        member: Some(Member { pool: identity.pool().clone(), identity, user, lock }),
    })
}

/// Reads the last incarnation and stores the next, before anybody hears of it.
fn next_incarnation(own: &Path) -> Result<Incarnation, Error> {
    let path = own.join("incarnation");
    let stored = match fs::read_to_string(&path) {
        // One that cannot be read is as if there was none: the clock makes it grow all the same.
        Ok(text) => text.trim().parse().ok().map(Incarnation),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::file("cannot read", &path)(error)),
    };
    let next = Incarnation::next(stored, sys::unix_ms());
    let fresh = own.join("incarnation.new");
    fs::write(&fresh, next.0.to_string())
        .and_then(|()| fs::File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(Error::file("cannot write", &path))?;
    Ok(next)
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file("cannot make", path))
}

fn listen(
    registry: &mio::Registry,
    asked: &[SocketAddr],
    config: &Config,
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Error> {
    let any = [SocketAddr::from(([0, 0, 0, 0], 0))];
    let wanted = [asked, &config.listen, &any].into_iter().find(|list| !list.is_empty()).unwrap_or(&any);
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for &address in wanted {
        let failed = |source| Error::Listen { address, source };
        let mut listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let key = key::LISTENERS + listeners.len() as u64;
        registry.register(&mut listener, token(Owner::Daemon, key), Interest::READABLE).map_err(failed)?;
        if bound.ip().is_unspecified() {
            addresses.extend(sys::reachable(bound.port(), bound.is_ipv6()));
        } else {
            addresses.push(bound);
        }
        listeners.push(listener);
    }
    addresses.truncate(mutirao_wire::limits::ADDRESSES_MAX);
    Ok((listeners, addresses))
}

/// A node with many links, workers and programs needs many descriptors, and its memory, keys
/// included, is not for a core dump.
fn set_own_limits() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let set = |resource, change: fn(&mut rustix::process::Rlimit)| {
        let mut limit = getrlimit(resource);
        change(&mut limit);
        if let Err(error) = setrlimit(resource, limit) {
            tracing::debug!("the limit {resource:?} stays as it is: {error}");
        }
    };
    set(Resource::Nofile, |limit| limit.current = limit.maximum);
    set(Resource::Core, |limit| limit.current = Some(0));
}
