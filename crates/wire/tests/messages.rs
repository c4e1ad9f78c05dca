//! Every message, its frozen bytes, and what happens to bytes that are none.

use mutirao_wire::bag::*;
use mutirao_wire::charter::*;
use mutirao_wire::frame::{Decoder, Header};
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::*;
use mutirao_wire::limits::*;
use mutirao_wire::link::*;
use mutirao_wire::local::*;
use mutirao_wire::node::*;
use mutirao_wire::pipe::*;
use mutirao_wire::plugin::*;
use mutirao_wire::query::*;
use mutirao_wire::stream::*;
use mutirao_wire::tree::*;
use mutirao_wire::wait::*;
use mutirao_wire::worker::*;
use mutirao_wire::*;
use proptest::prelude::*;

fn node(tag: u8) -> NodeRef {
    NodeRef {
        id: NodeId([tag; 32]),
        incarnation: Incarnation(7),
        name: format!("node{tag}"),
        addresses: vec!["127.0.0.1:4000".parse().unwrap(), "[::1]:4000".parse().unwrap()],
    }
}

fn asker() -> Asker {
    Asker {
        app: AppId(5),
        app_name: "demo".into(),
        local_user: "ana@node1".into(),
        token: vec![1, 2],
        home: node(1),
        plugin: Some(plugin()),
    }
}

fn plugin() -> PluginRef {
    PluginRef {
        id: PluginId([3; 32]),
        name: "demo".into(),
        bytes: 99,
        arch: Arch::X86_64,
        libc: Some((2, 34)),
    }
}

fn want() -> Want {
    Want {
        count: 4,
        layout: Layout::Spread,
        labels: vec!["ssd".into()],
        below: Some("rack2".into()),
        hops: Some(3),
        ..Want::default()
    }
}

fn request() -> RequestId {
    RequestId { app: AppId(5), sequence: 1, attempt: 0 }
}

fn question() -> Question {
    Question { to: Some("node2".into()), user: "ana@node1".into(), order: vec![], topic: Topic::Nodes }
}

fn process_row() -> ProcessRow {
    let text = "exit code 7".into();
    ProcessRow {
        rank: 3,
        process: "demo.1".into(),
        node: "node2".into(),
        serial: 300,
        starts: 2,
        state: "ended".into(),
        end: Some(ProcessEnd { how: "exited".into(), code: Some(7), signal: None, text }),
        used: Some(ProcessUse { wall_us: 1, cpu_us: 2, peak_kib: 300 }),
    }
}

/// One frame of each message, as its family wrote it, with a function that reads it back.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&'static str, Vec<u8>)> = Vec::new();
    macro_rules! sample {
        ($family:ident: $($message:expr),* $(,)?) => {$({
            let message = $family::from($message);
            let mut bytes = Vec::new();
            message.put(&mut bytes);
            let mut decoder = Decoder::new(DATA_BODY_MAX);
            decoder.push(&bytes);
            let (header, body) = decoder.next_frame().unwrap().unwrap();
            assert_eq!($family::read(&header, body).as_ref(), Ok(&message));
            all.push((stringify!($family), bytes));
        })*};
    }
    let lineage = Lineage { ancestors: vec![node(1)], successors: vec![node(2)], sought: vec![node(3)] };
    let grant = Grant { serial: 3, lender: node(2), slots: 1 };
    let note = Note { node: "node3".into(), hindrance: Hindrance::AwaitsApproval };
    let id = AskId { origin: NodeId([1; 32]), number: 2 };
    sample!(LinkMessage:
        Hello { protocol: (1, 1), pool: PoolId([4; 32]), node: node(1), purpose: Purpose::Data, machine: [6; 16] },
        Welcome { protocol: 1, node: node(2), machine: [8; 16] },
        Refuse { reason: RefuseReason::Full },
        Beat {},
    );
    sample!(TreeMessage:
        Attach { nonce: 1, size: 2, here: true },
        Redirect { nonce: 1, to: vec![node(2)] },
        AttachRefused { nonce: 1, refusal: Refusal::Cycle },
        Climb { joiner: NodeId([1; 32]), nonce: 1, size: 2, acceptor: NodeId([2; 32]), height: 3 },
        Verdict { joiner: NodeId([1; 32]), nonce: 1, acceptor: NodeId([2; 32]), refusal: None },
        Attached { nonce: 1, lineage: lineage.clone() },
        Detach {},
        Shift { to: node(2), levels: 2, turn: 1 },
        Seek { root: node(2) },
        lineage,
        Summary { nodes: 2, slots_total: 8, slots_free: 300, archs: vec![Arch::X86_64],
            resources: vec![ResourceSum { name: "gpu".into(), total: 4, free: 3, largest: 2, largest_free: 1 }],
            labels: vec![LabelSum { label: "ssd".into(), total: 8, free: 300 }],
            names: vec![name_hash("rack2")], ..Summary::default() },
        Search { request: request(), want: want(), asker: asker().into(), budget_ms: 2000, round: 1 },
        SearchReply { request: request(), round: 1, grants: vec![grant], notes: vec![note.clone()], more: false },
        SearchCancel { request: request() },
        Ask { id, question: question(), budget_ms: 1000 },
        Answer { id, rows: vec![Row::Done { node: "node1".into(), text: "done".into() }], more: true, missing: 0 },
        CharterVersion { number: 300, hash: [7; 32] },
        CharterDocument { version: CharterVersion { number: 1, hash: [7; 32] }, document: vec![1, 2] },
    );
    let rank = Rank { priority: 3, share: 40, born_unix_ms: 1_700_000_000_000 };
    sample!(TreeMessage:
        Present { request: request(), want: want(), need: 4, asker: asker(), priority: -3, born_unix_ms: 1, waited_ms: 9 },
        Turned { request: request(), turn: Turn::Over(WaitEnd::Never { needs: 4, has: 3 }) },
        Withdraw { request: request(), slot_s: 600 },
        Reserve { request: request(), rank, want: want(), asker: asker(), start_ms: Some(300) },
        Unreserve { request: request() },
        Gathered { request: request(), held: 2, able: 4, soon: vec![(300, 1)] },
    );
    sample!(LeaseMessage:
        Confirm { app: AppId(5), epoch: Epoch(1), homes: vec![NodeId([1; 32])], serials: vec![3, 4] },
        Confirmed { app: AppId(5), refused: vec![4] },
        Release { serials: vec![3] },
        Revoked { serials: vec![3], end: LeaseEnd::Lapsed },
        WorkerNews { serial: 3, state: WorkerState::Ready },
        PluginApproved { plugin: PluginId([3; 32]) },
        Reclaiming { serials: vec![3], grace_ms: Some(500) },
    );
    let blob = Item::Blob { app: AppId(5), hash: BlobHash([2; 32]) };
    sample!(PluginMessage:
        NeedPlugin { plugin: PluginId([3; 32]) },
        PluginManifest { plugin: PluginId([3; 32]), manifest: Some(vec![1]) },
        NeedSource { item: Item::Plugin(PluginId([3; 32])), failed: None },
        Source { item: blob, node: node(2), ticket: Some(Ticket { word: [7; 16], bytes: 300 }) },
        NoSource { item: blob, why: "no".into() },
        HaveItem { item: Item::Plugin(PluginId([3; 32])) },
        BlobGet { transfer: 1, item: blob, hash: BlobHash([2; 32]), word: Some([7; 16]), offset: 65536, bytes: 300 },
        BlobMissing { transfer: 1 },
        ReleaseBlob { app: AppId(5), hash: BlobHash([2; 32]) },
    );
    sample!(StreamMessage:
        Bind { handle: Handle(1), serial: 3, app: AppId(5), epoch: Epoch(1) },
        Resume { handle: Handle(1), outstanding: vec![CallId(1), CallId(300)] },
        Resumed { handle: Handle(1), unknown: vec![CallId(300)] },
        WorkerEnded { handle: Handle(1), not_started: vec![], cause: "signal 11".into() },
        Unbound { handle: Handle(1) },
    );
    let lease = LeaseInfo {
        handle: Handle(1),
        lease: LeaseId { lender: NodeId([2; 32]), incarnation: Incarnation(7), serial: 3 },
        lender: node(2),
        slots: 1,
        local: false,
        arch: Arch::X86_64,
    };
    let held = HeldLease { handle: Handle(1), serial: 3, lender: node(2), slots: 2, works: true };
    sample!(LocalMessage:
        ClientHello { protocol: (1, 1), app: AppId(5), name: "demo".into(), epoch: Epoch(0), homes: vec![NodeId([1; 32])], leases: vec![held], plugin: None, as_user: true },
        ClientWelcome { protocol: 1, node: node(1), pool: Some(PoolId([4; 32])), user: "ana@node1".into(), spinner: 2 },
        ClientRefused { text: "no".into() },
        OfferPlugin { name: "demo".into(), version: String::new(), operations: vec![], files: vec!["demo".into()] },
        PluginOffered { plugin: Err("no".into()) },
        Allocate { sequence: 1, want: want(), at_least: 1, workers: true, wait: Some(Wait { priority: 3, patience_ms: Some(500) }) },
        Allocated { sequence: 1, leases: vec![lease], notes: vec![note], more: false, found: 1, free_hint: 3, waited: Some(WaitEnd::Full("node3".into())) },
        GiveBack { handles: vec![Handle(1)] },
        LeaseNews { handle: Handle(1), change: LeaseChange::Ended(LeaseEnd::Lapsed) },
        KillWorker { handle: Handle(1), call: Some(CallId(7)), code: failure::TIME_LIMIT },
        Query { number: 1, question: question() },
        Rows { number: 1, rows: vec![], more: false, missing: 1 },
        Resize { size: Size::More(2), leave: Leave::Rerun },
        OpenLane {},
        LaneOpened {},
        GroupNews { name: "demo".into(), outcome: Some("it has ended".into()) },
        ProcessNews { row: process_row(), last_lines: "so it goes".into() },
        EndGroup { by: "ana@node1".into() },
        OfferBlob { number: 1 },
        BlobOffered { number: 1, blob: Ok((BlobHash([2; 32]), 300)) },
        WithdrawBlob { hash: BlobHash([2; 32]) },
        FetchBlob { number: 1, handle: Handle(1), hash: BlobHash([2; 32]), ticket: Ticket { word: [7; 16], bytes: 300 } },
        BlobFetched { number: 1, refused: Some("no".into()) },
        DropBlob { handle: Handle(1), hash: BlobHash([2; 32]) },
    );
    sample!(WorkerMessage:
        WorkerHello { protocol: (1, 1), operations: vec!["frame".into()] },
        Fork { worker: 1, spinner: 2, slots: 1, directory: "/tmp/w1".into(), environment: vec![("MUTIRAO_SLOTS".into(), "1".into())] },
        Forked { worker: 1, pid: Ok(1234) },
        Exited { worker: 1, wait_status: 11, max_resident_kib: 2048 },
    );
    sample!(LineMessage:
        NeedTerminal {},
        TerminalMade { refused: Some("no".into()) },
        NeedBlob { hash: BlobHash([2; 32]) },
        BlobHere { hash: BlobHash([2; 32]), refused: Some("no".into()) },
        KeepBlob { number: 1 },
        BlobKept { number: 1, blob: Ok((BlobHash([2; 32]), Ticket { word: [7; 16], bytes: 300 })) },
    );
    sample!(PipeMessage:
        OpenPipe { number: 300, a: PipeEnd::Program, b: PipeEnd::Lease(Handle(1)) },
        ClosePipe { number: 300 },
        PipeOpened { number: 300, way: PipeWay::Ring(RingSide::Worker) },
        PipeBroken { number: 300 },
        PipeFailed { number: 300, text: "no".into() },
    );
    sample!(PipeOrder:
        JoinPipe { app: AppId(5), epoch: Epoch(1), number: 300, mine: PipePlace::Lease(3), node: node(2), other: PipePlace::Program },
        LeavePipe { app: AppId(5), number: 300, text: "no".into() },
        PipeNews { app: AppId(5), number: 300, state: PipeState::Failed("no".into()) },
    );
    sample!(PipeBinding:
        BindPipe { handle: Handle(1), app: AppId(5), number: 300, from: PipePlace::Lease(3), to: PipePlace::Program, plain: true },
        PipeBound { handle: Handle(1), plain: Some(PlainSocket { port: 4000, token: [9; TOKEN_BYTES] }) },
        PipeUnbound { handle: Handle(1), unknown: true },
    );
    sample!(MemberMessage:
        MemberHello { protocol: (1, 1), bag: BagId(9) },
        MemberBytes { bag: BagId(9), member: NodeId([2; 32]), bytes: vec![1, 2] },
        VisitHello { protocol: (1, 1), visit: VisitId(9), with: node(2) },
        VisitBytes { visit: VisitId(9), bytes: vec![1, 2] },
    );
    all
}

fn read(family: &str, header: &Header, body: &[u8]) -> bool {
    match family {
        "LinkMessage" => LinkMessage::read(header, body).is_ok(),
        "TreeMessage" => TreeMessage::read(header, body).is_ok(),
        "LeaseMessage" => LeaseMessage::read(header, body).is_ok(),
        "PluginMessage" => PluginMessage::read(header, body).is_ok(),
        "StreamMessage" => StreamMessage::read(header, body).is_ok(),
        "LocalMessage" => LocalMessage::read(header, body).is_ok(),
        "WorkerMessage" => WorkerMessage::read(header, body).is_ok(),
        "LineMessage" => LineMessage::read(header, body).is_ok(),
        "PipeMessage" => PipeMessage::read(header, body).is_ok(),
        "PipeOrder" => PipeOrder::read(header, body).is_ok(),
        "MemberMessage" => MemberMessage::read(header, body).is_ok(),
        "PipeBinding" => PipeBinding::read(header, body).is_ok(),
        other => unreachable!("{other}"),
    }
}

/// The bytes of released messages do not change: a changed body takes a new kind.
/// `MUTIRAO_BLESS=1` writes the file anew.
#[test]
fn the_bytes_of_every_message_are_frozen() {
    let text: String = samples()
        .iter()
        .map(|(family, bytes)| {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("{family} {hex}\n")
        })
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
    if std::env::var_os("MUTIRAO_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (now, then) in text.lines().zip(golden.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn a_truncated_message_is_refused() {
    for (family, bytes) in samples() {
        let (head, body) = bytes.split_first_chunk().unwrap();
        let header = Header::from_bytes(head);
        for cut in 0..body.len() {
            assert!(!read(family, &header, &body[..cut]), "{family} cut at {cut}");
        }
        let mut longer = body.to_vec();
        longer.push(0);
        assert!(!read(family, &header, &longer), "{family} with a byte too many");
    }
}

#[test]
fn the_largest_manifest_fits_a_control_frame() {
    let name = |i: usize| format!("{i:063}");
    let manifest = Manifest {
        layout: 1,
        name: name(0),
        version: name(0),
        arch: Arch::X86_64,
        interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
        libc: Some((2, 34)),
        operations: (0..OPERATIONS_MAX).map(|i| Operation { name: name(i), repeatable: true }).collect(),
        files: (0..PLUGIN_FILES_MAX)
            .map(|i| PluginFile { name: name(i), hash: BlobHash([1; 32]), bytes: u64::MAX })
            .collect(),
    };
    let bytes = manifest.canonical_bytes();
    assert!(bytes.len() + 64 < CONTROL_BODY_MAX, "{}", bytes.len());
    assert_eq!(Manifest::read(&bytes), Ok(manifest.clone()));
    let mut bad = manifest;
    bad.files[0].name = "../evil".into();
    assert!(Manifest::read(&bad.canonical_bytes()).is_err());
}

#[test]
fn a_part_aside_is_sent_on_with_its_body() {
    let extent = CallExtent { bytes: 50_000, limit_ms: 7 };
    let header = call_header(Handle(3), CallId(9), 2, extent, true, 20_000, true);
    let mut frame = Vec::new();
    put_aside(&mut frame, header);
    let mut decoder = Decoder::new(DATA_BODY_MAX);
    decoder.push(&frame);
    let (aside, body) = decoder.next_frame().unwrap().unwrap();
    assert_eq!(read_aside(&aside, body), Some(header));
    // Not what is no such part, nor a length that is none or too large.
    assert_eq!(read_aside(&header, body), None);
    assert_eq!(read_aside(&aside, &body[1..]), None);
    assert_eq!(read_aside(&aside, &(DATA_BODY_MAX as u32 + 1).to_le_bytes()), None);
    assert_eq!(read_aside(&Header { kind: (Kind::Result as u16).into(), ..aside }, body), None);
}

proptest! {
    #[test]
    fn any_body_of_any_kind_is_read_or_refused(
        kind in prop::sample::select(samples().iter().map(|(f, b)| (*f, [b[4], b[5]])).collect::<Vec<_>>()),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut header = Header::default();
        header.kind.set(u16::from_le_bytes(kind.1));
        header.length.set(body.len() as u32);
        read(kind.0, &header, &body);
        let _ = Manifest::read(&body);
    }

    #[test]
    fn a_flipped_bit_is_read_or_refused(which in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let all = samples();
        let (family, mut bytes) = all[which.index(all.len())].clone();
        let at = bit.index(bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(&bytes);
        if let Ok(Some((header, body))) = decoder.next_frame() {
            read(family, &header, body);
        }
    }
}
