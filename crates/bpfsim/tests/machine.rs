//! A machine that begins anew is like a new one.

use bpfsim::{
    Config, Cpu, Ebpf, EbpfLoader, Machine, ProgramInput, Record, Seed, Sim, ensure, millis,
};
use bpfsim_kernel::{Chooser, Offer, mix};
use std::cell::RefCell;
use std::rc::Rc;

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");
const KINDS: &[u8] = include_bytes!("../../../fixtures/three_kinds.bpf.o");
const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");

type Test = fn(&Sim) -> bpfsim::Result<String>;

/// What a test sees, in as many words as it has.
const TESTS: &[Test] = &[
    |sim| {
        let bpf = Ebpf::load(sim, COUNTER)?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(format!("{:?}", bpf.map("counters")?.entries()?))
    },
    |sim| {
        let mut bpf = Ebpf::load(sim, KINDS)?;
        let out = bpf
            .program_mut("arm_all")?
            .test_run(ProgramInput::empty())?;
        let random = sim.now();
        sim.run_for(millis(4))?;
        Ok(format!("{out:?} {random:?} {:?}", sim.printk()))
    },
    // Something else before the load, and two loads.
    |sim| {
        sim.advance(millis(1));
        let bpf = Ebpf::load(sim, COUNTER)?;
        let other = Ebpf::load(sim, MODELS)?;
        sim.spawn_on(Cpu(1), other.program("arm")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_for(millis(1))?;
        Ok(format!("{:?}", sim.trace().events()))
    },
    // The same bytes, otherwise.
    |sim| {
        let bpf = EbpfLoader::new().only("inc").load(sim, COUNTER)?;
        let names: Vec<_> = bpf.programs().map(|p| p.name().to_string()).collect();
        Ok(format!("{names:?}"))
    },
    // It ends in the middle of things, with code of user space that never goes on.
    |sim| {
        let bpf = Ebpf::load(sim, MODELS)?;
        sim.spawn_user(Cpu(1), async |user| {
            user.pause().await;
            Ok(())
        })?;
        sim.run_until_idle()?;
        sim.spawn_on(Cpu(0), bpf.program("unlocked")?, ProgramInput::empty())?;
        Ok(format!("{}", bpf.global::<u64>("counter")?))
    },
    |sim| Err(Ebpf::load(sim, b"no object").map(drop).expect_err("none")),
    // Steps that are remembered, and steps after those.
    |sim| {
        let bpf = Ebpf::load_static(sim, COUNTER)?;
        let (map, mut value) = (bpf.map("counters")?, [0; 24]);
        value[0] = 7;
        map.update(&[0; 4], &value, 0)?;
        let outside = map.update(&[9; 4], &value, 0).map_err(|e| e.to_string());
        sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
        let before = map.lookup(&[0; 4])?;
        sim.run_until_idle()?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(format!("{outside:?} {before:?} {:?}", map.entries()?))
    },
    // From some point on it does a call itself, and has what happens recorded.
    |sim| {
        let mut bpf = Ebpf::load(sim, KINDS)?;
        let mut arm = || bpf.program_mut("arm_all")?.test_run(ProgramInput::empty());
        let before = (
            arm()?,
            sim.timeline("", None)
                .text(bpfsim::explore::timeline::Detail::All)
                .len(),
        );
        sim.override_helper("bpf_timer_start", |_| Some(-22i64 as u64))?;
        sim.record(Record {
            moments: true,
            ..Record::default()
        });
        Ok(format!("{before:?} {:?}", arm()?))
    },
    // The same beginning, and then another step.
    |sim| {
        let bpf = Ebpf::load_static(sim, COUNTER)?;
        let map = bpf.map("counters")?;
        map.update(&[0; 4], &[1; 24], 0)?;
        sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(format!("{:?}", map.entries()?))
    },
    |sim| counted_from(sim, 7),
    |sim| counted_from(sim, 8),
];

/// A variable is set, and shapes are looked at, between steps that are remembered.
fn counted_from(sim: &Sim, first: u64) -> bpfsim::Result<String> {
    let mut bpf = Ebpf::load_static(sim, MODELS)?;
    let spec = bpf.map("flows")?.spec();
    bpf.set_global("counter", &1u64)?;
    bpf.set_global("counter", &first)?;
    let packet = bpf.program_mut("small")?.takes_packet();
    let short = bpf.set_global("counter", &1u32).map_err(|e| e.to_string());
    sim.spawn_on(Cpu(0), bpf.program("small")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    let counter: u64 = bpf.global("counter")?;
    Ok(format!("{} {packet} {short:?} {counter}", spec.name))
}

/// Several stretches with calls between them; it fails after so many.
fn stretches(sim: &Sim, fails: u64) -> bpfsim::Result<String> {
    let bpf = Ebpf::load_static(sim, MODELS)?;
    let flows = bpf.map("flows")?;
    sim.spawn_on(Cpu(0), bpf.program("arm")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    ensure!(fails != 1);
    flows.update(&[3; 4], &[0; 24], 0)?;
    sim.spawn_on(Cpu(0), bpf.program("locked")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("arm_own")?, ProgramInput::empty())?;
    sim.run_for(millis(1))?;
    ensure!(fails != 2);
    let deleted = flows.delete(&[3; 4]).map_err(|e| e.to_string());
    sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(0), bpf.program("small")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    Ok(format!("{deleted:?} {:?}", flows.entries()?))
}

/// Makes these choices, and behind them others by chance, which are noted.
struct Picks {
    picks: Rc<RefCell<Vec<usize>>>,
    at: usize,
    chance: u64,
}

impl Chooser for Picks {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let picks = &mut *self.picks.borrow_mut();
        if self.at == picks.len() {
            self.chance = mix(self.chance, self.at as u64);
            // Mostly what went on before goes on.
            let pick = match (self.chance >> 40).is_multiple_of(3) {
                true => (self.chance >> 8) as usize % offer.choices.len(),
                false => 0,
            };
            picks.push(pick);
        }
        self.at += 1;
        picks[self.at - 1]
    }

    fn explores(&self) -> bool {
        true
    }

    fn passed(&mut self, choices: usize, _: usize) {
        self.at = choices;
    }

    fn comes_back(&self) -> bool {
        !mix(self.chance, self.at as u64).is_multiple_of(4)
    }
}

/// As far as one likes, to choices near the end and near the beginning, from executions that failed
/// somewhere, with others in between that are not gone back in.
#[test]
fn going_back_leads_where_a_new_machine_comes_to() {
    let machine = Machine::new(Config::default()).expect("a machine");
    machine.remember();
    let picks = Rc::new(RefCell::new(Vec::new()));
    let seen = |sim: &Sim, fails: u64| {
        let saw = stretches(sim, fails).map_err(|e| e.to_string());
        (saw, sim.trace_hash(), sim.now(), sim.warnings().len())
    };
    let chooser = |picks: &Rc<RefCell<Vec<usize>>>, chance| Picks {
        picks: Rc::clone(picks),
        at: 0,
        chance,
    };
    let mut number = 1;
    for round in 0..300_u64 {
        number = mix(number, round);
        let all = picks.borrow().len();
        let keep = match number % 4 {
            0 => (number >> 8) as usize % (all + 1),
            _ => all - ((number >> 8) as usize % 5).min(all),
        };
        picks.borrow_mut().truncate(keep);
        let fails = (number >> 24) % 6;
        let sim = machine.again(0, keep, Box::new(chooser(&picks, number)));
        let came = seen(sim, fails);
        let known = Rc::new(RefCell::new(picks.borrow().clone()));
        let new = Sim::with_chooser(Config::default(), Box::new(chooser(&known, 0)));
        let want = seen(&new.expect("a machine"), fails);
        assert_eq!(came, want, "round {round}, {keep} of {all} choices kept");
        assert_eq!(known.borrow().len(), picks.borrow().len());
        if number % 7 == 0 {
            let other = Rc::default();
            let _ = seen(machine.begin(0, Box::new(chooser(&other, number))), fails);
        }
    }
}

/// Whatever the first execution was whose steps are remembered.
#[test]
fn a_machine_that_begins_anew_is_like_a_new_one() {
    (0..TESTS.len()).for_each(rounds);
}

fn rounds(first: usize) {
    let machine = Machine::new(Config::default()).expect("a machine");
    let seen = |sim: &Sim, test: &Test| {
        let saw = test(sim).map_err(|e| e.to_string());
        (saw, sim.trace_hash(), sim.now())
    };
    let mut number = first as u64;
    for round in 0..12_u64 {
        let seed = round / 4;
        // In changing order, some several times in a row.
        number = bpfsim_kernel::mix(number, round);
        let test = match round {
            0 => &TESTS[first],
            _ => &TESTS[(number >> 32) as usize % TESTS.len()],
        };
        let config = Config {
            seed,
            ..Config::default()
        };
        let new = Sim::with(config, Seed(seed)).expect("a machine");
        let want = seen(&new, test);
        for again in 0..3 {
            let sim = machine.begin(seed, Seed(seed).chooser());
            assert_eq!(seen(sim, test), want, "round {round}, again {again}");
        }
    }
}
