//! The configuration as operators meet it: files and variables in, typed values or lines out.

#![allow(clippy::unwrap_used)]

use super::*;

/// The explained file, which the tests hold against the code.
const EXPLAINED: &str = include_str!("../../config/strowger.toml");

/// Every table and key at once, none of them wrong.
const COMPLETE: &str = r#"
    workers = 3
    user = "root"
    domains = ["Example.TEST", "192.0.2.1"]
    record_route = false
    drain_s = 5
    [[listen]]
    name = "core"
    transport = "sctp"
    address = ["192.0.2.1:5060", "198.51.100.1:5060"]
    advertise = "sip.Example.test:5070"
    stack = "kernel"
    [[listen]]
    transport = "udp"
    address = "[::]:5060"
    advertise = "[2001:DB8::1]"
    [[next_hop]]
    domain = "z.test"
    targets = ["sctp:192.0.2.9:5062", "udp:[2001:db8::9]"]
    [[allow]]
    listener = "core"
    register = ["192.0.2.0/24"]
    relay = ["192.0.2.7"]
    [[allow]]
    admin = ["::1/128"]
    [admin]
    address = "off"
    [log]
    level = "debug"
    [location]
    store = "memory"
"#;

fn lines(toml: &str) -> Vec<String> {
    Config::from_text(toml).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The only mistake of a text.
fn line(toml: &str) -> String {
    let lines = lines(toml);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap()
}

fn with_variables(toml: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    read::config(Some(source::Given::nameless(toml)), variables)
}

/// Everything as JSON: two configurations are the same when these are.
fn whole(config: &Config) -> serde_json::Value {
    serde_json::json!([config.fixed(), config.live])
}

#[test]
fn without_a_file_loopback_is_served_over_what_the_machine_has() {
    let config = Config::built_in().unwrap();
    let names: Vec<_> = config.listen.iter().map(|listen| listen.name.as_str()).collect();
    assert_eq!(names, ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "sctp:127.0.0.1:5060"]);
    assert!(config.workers >= 1);
}

#[test]
fn many_processes_have_smaller_mailboxes() {
    let bytes = |workers, memory| {
        Config::from_text(&format!("workers = {workers}\n[memory]\n{memory}")).unwrap().mailbox_bytes()
    };
    assert_eq!([2, 8, 128].map(|workers| bytes(workers, "")), [2_097_152, 828_504, 262_144]);
    assert_eq!(bytes(8, "mailbox_bytes = 131072"), 131_072);
}

#[test]
fn the_explained_file_says_the_defaults() {
    let explained = Config::from_text(EXPLAINED).unwrap();
    assert_eq!(whole(&explained), whole(&Config::built_in().unwrap()));
}

#[test]
fn the_explained_file_names_every_key() {
    let notes = keys::Notes::default();
    let tree = source::tree(Some(source::Given::nameless(COMPLETE)), Vec::new()).unwrap();
    read::all(keys::Keys::new("", tree, &notes), &notes);
    let known = notes.known();
    assert!(known.contains("listen[].advertise") && known.contains("next_hop[].targets"));
    let mut table = String::new();
    let mut named = std::collections::BTreeSet::new();
    for line in EXPLAINED.lines() {
        // A key that has no default stands behind one `#` without a blank.
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]")) {
            table = format!("{}[].", name.0);
            named.insert(name.0.to_string());
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            table = format!("{}.", name.0);
            named.insert(name.0.to_string());
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            named.insert(format!("{table}{key}"));
        }
    }
    assert_eq!(named, known);
}

#[test]
fn a_complete_file_is_read_as_it_is_meant() {
    let config = Config::from_text(COMPLETE).unwrap();
    assert_eq!((config.workers, config.seats(), config.user.as_deref()), (3, 4, Some("root")));
    assert_eq!(config.live.domains, ["example.test", "192.0.2.1"]);
    let [core, udp] = config.listen.as_slice() else { panic!("{:?}", config.listen) };
    assert_eq!((core.addresses.len(), core.stack), (2, Stack::Kernel));
    assert_eq!(core.sent_by, SentBy { host: "sip.example.test".to_string(), port: 5070 });
    assert_eq!(udp.sent_by, SentBy { host: "[2001:db8::1]".to_string(), port: 5060 });
    let targets = &config.live.next_hop.first().unwrap().targets;
    assert_eq!(targets.first().unwrap().address.to_string(), "192.0.2.9:5062");
    assert_eq!(targets.get(1).unwrap().address.to_string(), "[2001:db8::9]:5060");
    assert_eq!(config.admin.address, None);
    assert_eq!((config.live.log.level, config.live.record_route, config.live.drain_s), (Level::Debug, false, 5));
}

#[test]
fn what_sighup_reloads_survives_its_way_as_json() {
    let live = Config::from_text(COMPLETE).unwrap().live;
    let json = serde_json::to_string(&live).unwrap();
    assert_eq!(serde_json::from_str::<Live>(&json).unwrap(), live);
}

#[test]
fn every_key_is_also_a_variable_and_the_variable_wins() {
    let variables = [
        ("STROWGER_WORKERS", "7"),
        ("STROWGER_SCTP__AUTOCLOSE_S", "400"),
        ("STROWGER_RECORD_ROUTE", "false"),
        ("STROWGER_DOMAINS", "a.test, z.test"),
        ("STROWGER_LOG__LEVEL", "trace"),
        ("STROWGER_LISTEN", r#"[{transport="tcp", address="127.0.0.1:5070"}]"#),
        ("STROWGER_ADMIN__ADDRESS", ""),
        ("STROWGER_SERVICE_HOST", "10.0.0.1"),
        ("STROWGER_PORT_5060_TCP", "tcp://10.0.0.1:5060"),
        ("HOME", "/root"),
    ];
    let config = with_variables("workers = 2\n[sctp]\nautoclose_s = 200", &variables).unwrap();
    assert_eq!((config.workers, config.sctp.autoclose_s), (7, 400));
    assert_eq!(config.live.domains, ["a.test", "z.test"]);
    assert!(!config.live.record_route && config.live.log.level == Level::Trace);
    assert_eq!(config.listen.first().unwrap().name, "tcp:127.0.0.1:5070");
    assert!(config.admin.address.is_some(), "an empty variable is none");
}

#[test]
fn a_wrong_variable_is_named() {
    let mistakes = with_variables("", &[("STROWGER_WORKERS", "many"), ("STROWGER_WORKER", "1")]).unwrap_err();
    let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    let many = "workers = \"many\": a whole number of processes (0: one per core) from 0 to 128 (default 0) \
                (set by STROWGER_WORKERS)";
    assert_eq!(lines, [many, "STROWGER_WORKER = \"1\": no such variable; did you mean `STROWGER_WORKERS`?"]);
}

#[test]
fn what_looks_like_nothing_we_know_is_not_guessed_at() {
    let unknown = |name| {
        let mistakes = with_variables("", &[(name, "1")]).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        mistakes.first().unwrap().to_string()
    };
    let explained = "config/strowger.toml explains all of them";
    assert_eq!(unknown("STROWGER_FOO"), format!("STROWGER_FOO = \"1\": no such variable; {explained}"));
    assert_eq!(unknown("STROWGER_FOO__BAR"), format!("STROWGER_FOO__BAR = \"1\": no such variable; {explained}"));
    let close = unknown("STROWGER_SCTP__AUTOCLOSE");
    assert!(
        close.starts_with("STROWGER_SCTP__AUTOCLOSE = ") && close.contains("`STROWGER_SCTP__AUTOCLOSE_S`"),
        "{close}"
    );
    assert_eq!(line("foo = 1"), format!("foo = 1: no such key; {explained}"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"
        workers = -1
        drian_s = 2
        domains = [5, "no spaces"]
        [[listen]]
        transport = "SCTP"
        [[listen]]
        transport = "udp"
        address = "localhost:5060"
        port = 5060
        [sctp]
        autoclose = 400
        [log]
        level = true
        [timers]
        c_ms = 180000
    "#;
    let lines = lines(text);
    let keys: Vec<_> = lines.iter().map(|line| line.split([' ', ':']).next().unwrap()).collect();
    let expected = [
        "workers",
        "listen[0].transport",
        "listen[0].address",
        "listen[1].address[0]",
        "domains[0]",
        "domains[1]",
        "timers.c_ms",
        "log.level",
        "drian_s",
        "listen[1].port",
        "sctp.autoclose",
    ];
    let mut sorted = expected;
    sorted.sort_unstable();
    let mut found = keys.clone();
    found.sort_unstable();
    assert_eq!(found, sorted, "{lines:#?}");
    assert!(lines.iter().any(|line| line == "drian_s = 2: no such key; did you mean `drain_s`?"), "{lines:#?}");
    let autoclose = "sctp.autoclose = 400: no such key; did you mean `sctp.autoclose_s`?";
    assert!(lines.iter().any(|line| line == autoclose), "{lines:#?}");
}

#[test]
fn a_key_of_another_table_is_found_there() {
    assert_eq!(line("autoclose_s = 400"), "autoclose_s = 400: no such key; did you mean `sctp.autoclose_s`?");
}

#[test]
fn what_is_not_toml_is_one_line_with_its_place() {
    let line = line("workers = 2\ndomains = [\"a.test\"\n[log]\n");
    assert!(line.starts_with("configuration file: line 3, column 1: ") && line.ends_with(", in `[log]`"), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(
        self::line("workers = 2\nworkers = 3"),
        "configuration file: line 2, column 1: duplicate key, in `workers = 3`"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let mistakes = Config::load(Some(Path::new("/no/such.toml"))).unwrap_err();
    assert!(mistakes.first().unwrap().to_string().starts_with("/no/such.toml: cannot be read: "));
}

/// One `[[listen]]` and further lines.
fn listen(transport: &str, address: &str, more: &str) -> String {
    format!("[[listen]]\ntransport = \"{transport}\"\naddress = {address}\n{more}")
}

#[test]
fn a_wildcard_must_say_who_it_is() {
    let missing = line(&listen("udp", "\"0.0.0.0:5060\"", ""));
    assert!(missing.starts_with("listen[0].advertise: missing: HOST or HOST:PORT"), "{missing}");
    let again = line(&listen("udp", "\"0.0.0.0:5060\"", "advertise = \"0.0.0.0\""));
    assert!(again.starts_with("listen[0].advertise = \"0.0.0.0\": HOST or HOST:PORT"), "{again}");
    assert!(Config::from_text(&listen("udp", "\"0.0.0.0:5060\"", "advertise = \"a.test\"")).is_ok());
}

#[test]
fn an_address_list_is_sctps_with_one_port_and_one_family() {
    let wrong = |transport, list| line(&listen(transport, list, ""));
    assert!(wrong("udp", r#"["127.0.0.1:5060", "127.0.0.2:5060"]"#).contains("one address; only transport = \"sctp\""));
    assert!(wrong("sctp", r#"["127.0.0.1:5060", "127.0.0.2:5061"]"#).contains("one port for all addresses"));
    assert!(wrong("sctp", r#"["127.0.0.1:5060", "[::1]:5060"]"#).contains("IPv4 only or IPv6 only"));
    assert!(wrong("udp", "\"127.0.0.1:0\"").contains("port 1 to 65535"));
    assert!(wrong("udp", "[]").starts_with("listen[0].address = []: IP:PORT"));
}

#[test]
fn two_listeners_do_not_share_an_address_or_a_name() {
    let two = |a: &str, z: &str| line(&format!("{}{}", listen("udp", a, ""), listen("udp", z, "name = \"z\"")));
    let right = "listen[1].address = 127.0.0.1:5060: another address: listen[0] has udp there already";
    assert_eq!(two("\"127.0.0.1:5060\"", "\"127.0.0.1:5060\""), right);
    let text = listen("udp", "\"0.0.0.0:5060\"", "advertise = \"a.test\"\n") + &listen("udp", "\"127.0.0.1:5060\"", "");
    assert!(line(&text).contains("listen[0] has udp there already"));
    let name = listen("udp", "\"127.0.0.1:1\"", "name = \"a\"\n") + &listen("tcp", "\"127.0.0.1:1\"", "name = \"a\"");
    assert_eq!(line(&name), "listen[1].name = a: a name of its own: listen[0] has this one");
    assert!(
        line(&listen("tcp", "\"127.0.0.1:5059\"", "")).starts_with("admin.address = 127.0.0.1:5059: another address")
    );
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    let store = line("[location]\nstore = \"sqlite:/var/lib/strowger.db\"");
    assert_eq!(store, "location.store = \"sqlite:/var/lib/strowger.db\": not in this version; memory");
}

#[test]
fn sctp_in_user_space_has_one_address_and_a_udp_port() {
    let user = |addresses: &str, more: &str| line(&listen("sctp", addresses, &format!("stack = \"user\"\n{more}")));
    let several = user("[\"127.0.0.1:5060\", \"127.0.0.2:5060\"]", "");
    assert!(several.contains("SCTP in user space is not multi-homed"), "{several}");
    let zero = user("\"127.0.0.1:5060\"", "encapsulation_port = 0");
    let default = "(default: in user space 9899, with the kernel's SCTP none)";
    assert!(zero.ends_with(&format!("= 0: a UDP port from 1 to 65535 {default}")), "{zero}");
    let udp = line(&listen("udp", "\"127.0.0.1:5060\"", "encapsulation_port = 9899"));
    assert!(udp.contains("only with transport = \"sctp\""), "{udp}");
}

#[test]
fn an_unknown_user_is_a_mistake() {
    assert!(line("user = \"no-such-user\"").starts_with("user = \"no-such-user\": a user of this machine"));
}

#[test]
fn retries_are_few() {
    assert!(line("[sctp]\nsend_retries = 10").contains("from 0 to 9 (default 0)"));
}

#[test]
fn timers_keep_what_the_rfc_asks() {
    // RFC 3261 §16.6 item 11 and §18 (A18).
    assert!(line("[timers]\nc_ms = 180000").contains("from 180001"));
    let autoclose = "sctp.autoclose_s = 31: at least 32 seconds, the 64*T1 of a transaction (RFC 3261 §18)";
    assert_eq!(line("[sctp]\nautoclose_s = 31"), autoclose);
    let udp = listen("udp", "\"127.0.0.1:5060\"", "");
    let slow = format!("{udp}[timers]\nt1_ms = 10000\nt2_ms = 10000");
    assert!(Config::from_text(&slow).is_ok(), "without an association nothing closes one");
    assert!(line("[timers]\nt2_ms = 499").starts_with("timers.t2_ms = 499: at least timers.t1_ms, which is 500"));
}

#[test]
fn next_hops_need_a_place_that_a_listener_can_reach() {
    let hop = |target: &str| format!("[[next_hop]]\ndomain = \"z.test\"\ntargets = [\"{target}\"]");
    assert!(line(&hop("192.0.2.1:5060")).starts_with("next_hop[0].targets[0] = \"192.0.2.1:5060\": TRANSPORT:IP:PORT"));
    assert!(line(&hop("sctp:[2001:db8::1]:5060")).contains("add a [[listen]] with sctp over IPv6"));
    assert!(line("[[next_hop]]\ntargets = [\"udp:192.0.2.1\"]").starts_with("next_hop[0].domain: missing"));
    let port = line(&format!("{}\nencapsulation_port = 9899", hop("udp:192.0.2.1")));
    assert_eq!(port, "next_hop[0].encapsulation_port = 9899: only with sctp targets");
}

#[test]
fn what_waits_for_an_association_is_at_least_one_message() {
    let line = line("[limits]\nassociation_queue_bytes = 65534");
    assert_eq!(line, "limits.association_queue_bytes = 65534: at least limits.message_bytes, which is 65535");
}

#[test]
fn the_architectures_of_tcp_have_one_seat_more_than_symmetric() {
    let seats = |architecture: &str| {
        let config = Config::from_text(&format!("workers = 2\n[tcp]\narchitecture = \"{architecture}\"")).unwrap();
        (config.seats(), config.extra_seat())
    };
    assert_eq!(seats("symmetric"), (3, None));
    assert_eq!(seats("single_owner"), (4, Some(3)));
    assert_eq!(seats("supervisor"), (4, Some(3)));
    assert_eq!(
        line("[tcp]\narchitecture = \"openser\""),
        "tcp.architecture = \"openser\": one of symmetric, single_owner, supervisor"
    );
}

#[test]
fn cache_and_queue_are_the_supervisors() {
    for key in ["descriptor_cache", "priority_queue"] {
        let alone = line(&format!("[tcp]\n{key} = true"));
        assert_eq!(alone, format!("tcp.{key} = true: false, or tcp.architecture = \"supervisor\""));
        assert!(line(&format!("[tcp]\narchitecture = \"single_owner\"\n{key} = true")).starts_with("tcp."));
        assert!(Config::from_text(&format!("[tcp]\narchitecture = \"supervisor\"\n{key} = true")).is_ok());
    }
}

#[test]
fn a_supervisor_before_all_others_takes_the_right_to_it() {
    let text = |nice: i32| format!("[tcp]\narchitecture = \"supervisor\"\nsupervisor_nice = {nice}");
    assert!(Config::from_text(&text(19)).is_ok());
    assert!(line(&text(-21)).contains("from -20 to 19"));
    match sys::process::may_be_nice(-20) {
        true => assert!(Config::from_text(&text(-20)).is_ok()),
        false => assert!(line(&text(-20)).starts_with("tcp.supervisor_nice = -20: 0 to 19: less takes root")),
    }
    // Where nobody has one, nobody needs it.
    assert!(Config::from_text("[tcp]\nsupervisor_nice = -20").is_ok());
}

#[test]
fn a_wrong_listener_is_not_blamed_twice() {
    let text = listen("sctp", "\"192.0.2.1\"", "name = \"core\"\n")
        + "[[allow]]\nlistener = \"core\"\n[[next_hop]]\ndomain = \"z.test\"\ntargets = [\"sctp:192.0.2.1\"]";
    assert!(line(&text).starts_with("listen[0].address[0] = \"192.0.2.1\": IP:PORT"));
}

#[test]
fn allow_lists_name_listeners_and_networks() {
    assert!(line("[[allow]]\nlistener = \"core\"").contains("the name of a listener: udp:127.0.0.1:5060, tcp:"));
    let network = line("[[allow]]\nrelay = [\"192.0.2.1/24\"]");
    assert_eq!(network, "allow[0].relay[0] = \"192.0.2.1/24\": 192.0.2.0/24 (or /32 for the one address)");
    assert!(line("[[allow]]\nregister = [\"all\"]").contains("a network such as 192.0.2.0/24"));
    assert!(
        line("[[allow]]\nlistener = \"udp:127.0.0.1:5060\"\nadmin = []").starts_with("allow[0].admin = []: only in")
    );
}

#[test]
fn by_default_only_loopback_may_do_anything() {
    let live = Config::built_in().unwrap().live;
    for what in [What::Register, What::Relay, What::Admin] {
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(live.may(0, what, here.parse().unwrap()), "{what:?} {here}");
        }
        for elsewhere in ["192.0.2.1", "::2", "::ffff:192.0.2.1"] {
            assert!(!live.may(0, what, elsewhere.parse().unwrap()), "{what:?} {elsewhere}");
        }
    }
}

#[test]
fn an_allow_list_replaces_the_default_of_what_it_speaks_of() {
    let live = Config::from_text(COMPLETE).unwrap().live;
    let peer = "192.0.2.7".parse().unwrap();
    assert!(live.may(0, What::Register, peer) && live.may(0, What::Relay, peer));
    assert!(!live.may(1, What::Register, peer), "the list is the listener core's");
    assert!(!live.may(0, What::Relay, "192.0.2.8".parse().unwrap()));
    assert!(!live.may(0, What::Register, "127.0.0.1".parse().unwrap()));
    assert!(live.may(0, What::Admin, "::1".parse().unwrap()));
    assert!(!live.may(0, What::Admin, "127.0.0.1".parse().unwrap()));
    let only_relay = Config::from_text("[[allow]]\nrelay = [\"192.0.2.0/24\"]").unwrap().live;
    assert!(only_relay.may(0, What::Admin, "127.0.0.1".parse().unwrap()), "nobody spoke of admin");
}

#[test]
fn a_reload_changes_what_may_change_and_names_the_rest() {
    let running = Config::from_text(COMPLETE).unwrap();
    let text = COMPLETE.replace("workers = 3", "workers = 4").replace("drain_s = 5", "drain_s = 9");
    let new = Config::from_text(&format!("{text}[sctp]\nautoclose_s = 600")).unwrap();
    let reloaded = running.changed_to(new).unwrap();
    assert_eq!(reloaded.live.drain_s, 9);
    let mut warnings = reloaded.warnings;
    warnings.sort();
    assert_eq!(
        warnings,
        ["sctp.autoclose_s = 600: needs a restart; still 300", "workers = 4: needs a restart; still 3"]
    );
}

#[test]
fn a_reload_names_a_new_encapsulation_port() {
    let hop = |port| {
        let text = format!(
            "{COMPLETE}[[next_hop]]\ndomain = \"u.test\"\ntargets = [\"sctp:192.0.2.9\"]\nencapsulation_port = {port}"
        );
        Config::from_text(&text).unwrap()
    };
    assert_eq!(hop(9899).changed_to(hop(9899)).unwrap().warnings, Vec::<String>::new());
    let mut running = hop(9899);
    // Said again with each reload, because a socket is opened at start only.
    for _ in 0..2 {
        let reloaded = running.changed_to(hop(9900)).unwrap();
        let warnings = reloaded.warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with("next_hop.encapsulation_port = 9900:"), "{warnings:?}");
        running.live = reloaded.live;
    }
    // The one of the start still has its socket.
    assert_eq!(running.changed_to(hop(9899)).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn sockets_for_encapsulation_ports_can_be_counted_in_a_byte() {
    let hops = |ports: u16, stack: &str| {
        let head = listen("sctp", "\"127.0.0.1:5060\"", &format!("stack = \"{stack}\"\n"));
        let hop = |n| {
            format!("[[next_hop]]\ndomain = \"{n}.test\"\ntargets = [\"sctp:192.0.2.9\"]\nencapsulation_port = {n}\n")
        };
        format!("workers = 3\n{head}{}", (1..=ports).map(hop).collect::<String>())
    };
    assert!(Config::from_text(&hops(252, "kernel")).is_ok() && Config::from_text(&hops(253, "user")).is_ok());
    let many = line(&hops(253, "kernel"));
    assert_eq!(
        many,
        "next_hop.encapsulation_port = 253 ports: at most 252 different ones with 3 workers: the kernel's SCTP has a socket for each"
    );
}

#[test]
fn a_reload_meets_the_listeners_that_run() {
    let running = Config::from_text(COMPLETE).unwrap();
    // The listener `core` moves to second place, and a new one has an allow list.
    let text = listen("udp", "\"127.0.0.1:5060\"", "name = \"new\"\n")
        + &listen("sctp", "\"127.0.0.1:5060\"", "name = \"core\"\n")
        + "[[allow]]\nlistener = \"core\"\nrelay = []\n[[allow]]\nlistener = \"new\"\nrelay = [\"192.0.2.1\"]";
    let reloaded = running.changed_to(Config::from_text(&text).unwrap()).unwrap();
    assert_eq!(reloaded.live.allow.first().unwrap().listener, Some(0));
    assert!(!reloaded.live.may(0, What::Relay, "192.0.2.1".parse().unwrap()));
    assert!(reloaded.warnings.iter().any(|line| line.starts_with("allow.listener = new:")), "{:?}", reloaded.warnings);
    // A next hop that only the new file's listeners could reach is refused whole.
    let text =
        listen("tcp", "\"127.0.0.1:5060\"", "") + "[[next_hop]]\ndomain = \"z.test\"\ntargets = [\"tcp:192.0.2.1\"]";
    assert!(running.changed_to(Config::from_text(&text).unwrap()).is_err());
}
