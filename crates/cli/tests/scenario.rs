//! Scenarios: what holds, what does not, and what is said of files that are wrong.

use std::process::Command;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Status and last line of a run, on the fixture's scenario with some text replaced.
fn run(replace: Option<(&str, &str)>) -> (i32, String) {
    run_of("three_kinds", replace)
}

fn run_of(fixture: &str, replace: Option<(&str, &str)>) -> (i32, String) {
    let text = std::fs::read_to_string(format!("{DIR}/fixtures/{fixture}.scenario.toml")).unwrap();
    let (from, to) = replace.unwrap_or_default();
    assert!(text.contains(from), "{from}");
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text.replacen(from, to, 1)).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_bpfsim"))
        .args(["run", &format!("fixtures/{fixture}.bpf.o"), "--scenario"])
        .arg(file.path())
        .current_dir(DIR)
        .output()
        .unwrap();
    let all = [out.stdout, out.stderr].concat();
    let all = String::from_utf8(all)
        .unwrap()
        .replace(file.path().to_str().unwrap(), "FILE");
    (
        out.status.code().unwrap(),
        all.lines().last().unwrap_or_default().trim().to_string(),
    )
}

#[test]
fn the_fixture_holds() {
    assert_eq!(run(None).0, 0);
}

#[test]
fn what_does_not_hold_is_named_with_its_line() {
    for (from, to, status, message) in [
        (
            "nr_closed = 1",
            "nr_closed = 7",
            1,
            "FAILED: FILE:24: nr_closed is 1, expected 7",
        ),
        (
            "ticks = 1,",
            "ticks = 2,",
            1,
            "FAILED: FILE:16: ports[1].ticks is 1, expected 2",
        ),
        (
            "age_flow = 1",
            "age_flow = 2",
            1,
            "FAILED: FILE:25: age_flow ran 1 times, expected 2",
        ),
        (
            "absent = true",
            "absent = false",
            1,
            "FAILED: FILE:28: flows[{{10, 0, 0, 7}, {10, 0, 0, 1}, 40001, 443}] does not exist",
        ),
        (
            "port 443 is idle, tick 1",
            "port 444",
            1,
            "FAILED: FILE:14: not printed (in this order): port 444",
        ),
        (
            "return = 0",
            "return = -1",
            1,
            "FAILED: FILE:8: returned 0, expected -1",
        ),
        (
            "arm_all",
            "arm_al",
            2,
            "bpfsim: FILE:7: no program `arm_al`; there is arm_all, arm_all_tc",
        ),
        (
            "2_000_000",
            "-1.5",
            2,
            "bpfsim: FILE:4: a float where the type is an integer",
        ),
        (
            "2_000_000 }",
            "1 }\nrun = \"arm_all\"",
            2,
            "bpfsim: FILE:3: a step does one thing; begin another [[step]]",
        ),
        (
            "3ms",
            "3 weeks",
            2,
            "bpfsim: FILE:13: unit ` weeks` is none of s, ms, us, ns",
        ),
        (
            "from_port = 40001",
            "from_port = 70000",
            2,
            "bpfsim: FILE:20: 70000 does not fit 2 bytes",
        ),
        (
            "from_port = 40001",
            "colour = 1",
            2,
            "bpfsim: FILE:20: flow_key has no member colour",
        ),
    ] {
        assert_eq!(
            run(Some((from, to))),
            (status, message.to_string()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn hooks_and_what_is_around_them() {
    let (status, last) = run_of("hooks", None);
    assert_eq!(status, 0, "{last}");
    for (from, to, status, message) in [
        (
            "limit = 7 }",
            "limit = 8 }",
            1,
            "FAILED: FILE:105: returned 8, expected 7",
        ),
        (
            "expect.result = 1\n",
            "expect.result = 2\n",
            1,
            "FAILED: FILE:18: the hook gave 1, expected 2",
        ),
        (
            "[\"drop_all\"]",
            "[]",
            1,
            "FAILED: FILE:19: ran drop_all, expected nothing",
        ),
        (
            "to = { xdp = \"eth0\" }",
            "to = { xdp = \"eth3\" }",
            2,
            "bpfsim: FILE:14: no device `eth3`; did you mean `eth0`?",
        ),
        (
            "to = { xdp = \"eth0\" }",
            "to = { xpd = \"eth0\" }",
            2,
            "bpfsim: FILE:14: unknown key `xpd`; did you mean `xdp`?",
        ),
        (
            "netdev = {",
            "netdevice = {",
            2,
            "bpfsim: FILE:7: unknown key `netdevice`; did you mean `netdev`?",
        ),
        (
            "to = { xdp = \"eth0\" }",
            "",
            1,
            "FAILED: FILE:13: program `drop_all`: the section `xdp` does not say what to attach to",
        ),
        (
            "\"eth1\", how",
            "\"eth0\", how",
            1,
            "FAILED: FILE:59: packet 1 was sent to eth1 by Redirect",
        ),
        (
            "records = [{ limit = 7 }]",
            "records = [{ limit = 6 }]",
            1,
            "FAILED: FILE:106: events: record 1.limit is 7, expected 6",
        ),
        (
            "....abcd",
            "....abce",
            1,
            "FAILED: FILE:94: memory at 0x7000 is 2e 2e 2e 2e 61 62 63 64, expected 2e 2e 2e 2e 61 62 63 65",
        ),
        (
            "overflow = 1",
            "overflow = 0",
            1,
            "FAILED: FILE:131: overflow gave 1, expected 0",
        ),
        (
            "cgroup = \"system/web\"\n",
            "set = { limit = 9 }\n",
            2,
            "bpfsim: FILE:62: limit is a constant: set it before anything runs",
        ),
        (
            "\"EAGAIN\"",
            "\"EAGIAN\"",
            2,
            "bpfsim: FILE:109: `EAGIAN` is no errno, such as ENOMEM",
        ),
        (
            "{ task = \"nginx\" }]",
            "{ task = \"ngnix\" }]",
            2,
            "bpfsim: FILE:76: no task `ngnix`; did you mean `nginx`?",
        ),
    ] {
        assert_eq!(
            run_of("hooks", Some((from, to))),
            (status, message.to_string()),
            "{from} -> {to}"
        );
    }
}

/// Each case: some text of a fixture's scenario, what is written instead, and what is said then.
fn says(fixture: &str, cases: &[(&str, &str, i32, &str)]) {
    let (status, last) = run_of(fixture, None);
    assert_eq!(status, 0, "{last}");
    for (from, to, status, message) in cases {
        assert_eq!(
            run_of(fixture, Some((from, to))),
            (*status, message.to_string()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn probes_of_user_programs_and_programs_of_sockets() {
    says(
        "attached",
        &[
            (
                "[\"started\"]",
                "[]",
                1,
                "FAILED: FILE:21: ran started, expected nothing",
            ),
            (
                "usdt = \"/bin/sh:shell:start\"",
                "usdt = \"/bin/sh:shell\"",
                2,
                "bpfsim: FILE:20: `/bin/sh:shell` is not like BINARY:PROVIDER:NAME",
            ),
            (
                "\"/bin/sh:main\"",
                "\"main\"",
                2,
                "bpfsim: FILE:10: `main` is not like BINARY:FUNCTION",
            ),
            (
                "{ map = \"socks\", what = \"sk_skb_verdict\" } }\n\n",
                "{ map = \"sock\", what = \"sk_skb_verdict\" } }\n\n",
                2,
                "bpfsim: FILE:25: no map `sock`; there is socks, own, .bss, percpu, shared",
            ),
            (
                "replace = \"own_egress\"",
                "replace = \"any_egress\"",
                1,
                "FAILED: FILE:42: program `shared_egress`: cannot be attached to cgroup_inet_egress of cgroup2: ENOENT",
            ),
            (
                "revision = 2",
                "revision = 7",
                1,
                "FAILED: FILE:42: program `shared_egress`: cannot be attached to cgroup_inet_egress of cgroup2: ESTALE",
            ),
            (
                "remove_cgroup = \"system/web\"",
                "remove_cgroup = \"system/wep\"",
                2,
                "bpfsim: FILE:53: no cgroup `system/wep`; did you mean `system/web`?",
            ),
            (
                "remove_cgroup = \"system/web\"",
                "remove_cgroup = \"system\"",
                1,
                "FAILED: FILE:53: cgroup `system`: EBUSY",
            ),
            (
                "cookies = [5, 6]",
                "cookies = [5]",
                1,
                "FAILED: FILE:61: program `user_many`: cannot be attached to 2 hooks at once: EINVAL (a cookie for each)",
            ),
            (
                "], pid = 300 }",
                "], pid = 301 }",
                1,
                "FAILED: FILE:65: program `user_many_returns`: cannot be attached to process 301: ESRCH",
            ),
            (
                "\"/bin/sh:exit\", \"/bin/sh:abort\"], pid",
                "\"/bin/sh:exit\", \"abort\"], pid",
                1,
                "FAILED: FILE:65: program `user_many_returns`: cannot be attached to 2 hooks at once: EINVAL (they are not all of one program)",
            ),
        ],
    );
}

#[test]
fn iterators_tasks_and_namespaces() {
    says(
        "iterators",
        &[
            (
                "\"0: 7=70\"",
                "\"0: 7=71\"",
                1,
                "FAILED: FILE:68: line 1 is `0: 7=70`, expected `0: 7=71`",
            ),
            (
                "\"1: 2000 has 0\", \"end 1\"",
                "\"1: 2000 has 0\"",
                1,
                "FAILED: FILE:26: line 3 is `end 1`, expected nothing",
            ),
            (
                "kind = \"net\"",
                "kind = \"nett\"",
                2,
                "bpfsim: FILE:93: no kind of namespaces `nett`; did you mean `net`?",
            ),
            (
                "namespaces = [\"inner\"]",
                "namespaces = [\"iner\"]",
                2,
                "bpfsim: FILE:13: no namespace `iner`; did you mean `inner`?",
            ),
            (
                "order = \"ancestors_up\"",
                "order = \"up\"",
                2,
                "bpfsim: FILE:76: an order is self_only, descendants_pre, descendants_post or ancestors_up",
            ),
            (
                "with = { over = \"hash\" }",
                "",
                1,
                "FAILED: FILE:63: program `elements`: cannot be attached to iter bpf_map_elem: EBADF (it goes over the elements of a map: which one?)",
            ),
            (
                "read = \"cgroups\"",
                "read = \"cgroup\"",
                2,
                "bpfsim: FILE:79: `cgroup` is not attached",
            ),
            (
                "to = \"reap\"",
                "to = \"vanish\"",
                2,
                "bpfsim: FILE:53: unknown key `vanish`; there are exit, reap, stop, resume, sleep",
            ),
            (
                "to = \"exit\"",
                "to = \"reap\"",
                1,
                "FAILED: FILE:46: task `nginx`: EBUSY",
            ),
            (
                "by = \"worker\"",
                "by = \"nginx\"",
                1,
                "FAILED: FILE:87: task `2000`: ESRCH",
            ),
            (
                "run = \"put_more\"\nby",
                "spawn = \"put_more\"\nby",
                2,
                "bpfsim: FILE:87: by goes with run, or with a fire without a cpu",
            ),
        ],
    );
}
