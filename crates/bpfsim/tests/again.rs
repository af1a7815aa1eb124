//! A search that goes back to choices sees what one sees that begins every execution anew.

mod small;

use bpfsim::{Config, Cpu, Ebpf, EbpfLoader, Machine, ProgramInput, Sim, millis};
use bpfsim_kernel::{Chooser, Offer};
use small::{Mixture, Program, number, random_program};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");
const WORLDS: &[u8] = include_bytes!("../../../fixtures/small_worlds.bpf.o");
const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");

/// Choices on the way that is being taken: which, and of how many.
#[derive(Default)]
struct Way {
    picks: Vec<(usize, usize)>,
    at: usize,
    asked: u64,
}

struct DepthFirst(Rc<RefCell<Way>>);

impl Chooser for DepthFirst {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let way = &mut *self.0.borrow_mut();
        if way.at == way.picks.len() {
            way.picks.push((0, offer.choices.len()));
        }
        assert_eq!(way.picks[way.at].1, offer.choices.len());
        way.at += 1;
        way.asked += 1;
        way.picks[way.at - 1].0
    }

    fn explores(&self) -> bool {
        true
    }

    fn passed(&mut self, choices: usize, _: usize) {
        self.0.borrow_mut().at = choices;
    }
}

impl Way {
    /// Goes to the next way; gives how many choices it has in common with this one.
    fn advance(&mut self) -> Option<usize> {
        self.at = 0;
        while let Some((pick, of)) = self.picks.pop() {
            if pick + 1 < of {
                self.picks.push((pick + 1, of));
                return Some(self.picks.len() - 1);
            }
        }
        None
    }
}

type Test = fn(&Sim) -> bpfsim::Result<String>;

const MOST: usize = 1500;

/// What each execution saw, in order, and how many choices were made in all.
fn search(test: &Test, goes_back: bool) -> (Vec<String>, u64) {
    search_on(&Config::default(), test, MOST, goes_back)
}

fn search_on(
    config: &Config,
    test: &dyn Fn(&Sim) -> bpfsim::Result<String>,
    most: usize,
    goes_back: bool,
) -> (Vec<String>, u64) {
    let machine = Machine::new(config.clone()).expect("a machine");
    if goes_back {
        machine.remember();
    }
    let way = Rc::new(RefCell::new(Way::default()));
    let (mut seen, mut keep) = (Vec::new(), 0);
    while seen.len() < most {
        let chooser = Box::new(DepthFirst(Rc::clone(&way)));
        let sim = match goes_back {
            true => machine.again(0, keep, chooser),
            false => machine.begin(0, chooser),
        };
        let saw = test(sim);
        let events = sim.trace();
        seen.push(format!(
            "{saw:?} {:#x} {:?} {:?} {:?}",
            sim.trace_hash(),
            sim.now(),
            events.events(),
            sim.warnings()
        ));
        match way.borrow_mut().advance() {
            Some(common) => keep = common,
            None => break,
        }
    }
    let asked = way.borrow().asked;
    (seen, asked)
}

const TESTS: &[Test] = &[
    |sim| {
        let bpf = Ebpf::load(sim, MODELS)?;
        sim.spawn_on(Cpu(0), bpf.program("small")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(bpf.global::<u64>("counter")?.to_string())
    },
    // Locks that are waited for. What begins anew is asked for its turns within the engine, what
    // goes back is not.
    |sim| {
        let bpf = Ebpf::load(sim, MODELS)?;
        sim.spawn_on(Cpu(0), bpf.program("locked")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("locked")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(format!("{:?}", bpf.map("guarded")?.entries()?))
    },
    // Several stretches, and something between them.
    |sim| {
        let mut bpf = Ebpf::load(sim, COUNTER)?;
        sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
        bpf.program_mut("arm_then_inc")?
            .test_run(ProgramInput::empty())?;
        let counters = bpf.map("counters")?;
        let before: [u64; 3] = counters.get(&0u32)?.unwrap_or_default();
        counters.update(&0u32.to_le_bytes(), &[0; 24], 0)?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_for(millis(1))?;
        let after: [u64; 3] = counters.get(&0u32)?.unwrap_or_default();
        Ok(format!("{} {}", before[0], after[0]))
    },
    |sim| {
        let bpf = Ebpf::load(sim, MODELS)?;
        sim.spawn_on(Cpu(0), bpf.program("arm")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("arm")?, ProgramInput::empty())?;
        sim.run_for(millis(1))?;
        Ok(format!("{:?}", bpf.map("flows")?.entries()?))
    },
    // Code of user space is run again, and what came before it is not.
    |sim| {
        let mut bpf = Ebpf::load(sim, COUNTER)?;
        bpf.program_mut("arm_then_inc")?
            .test_run(ProgramInput::empty())?;
        let counters = bpf.map("counters")?;
        let own = counters.clone();
        sim.spawn_user(Cpu(1), async move |user| {
            let value = user.lookup(&own, &0u32.to_le_bytes()).await;
            let gone = user.delete(&own, &7u32.to_le_bytes()).await;
            assert!(value.is_ok() && gone.is_err());
            Ok(())
        })?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        let after: [u64; 3] = counters.get(&0u32)?.unwrap_or_default();
        Ok(after[0].to_string())
    },
];

#[test]
fn going_back_sees_what_beginning_anew_sees() {
    for (i, test) in TESTS.iter().enumerate() {
        let (anew, all) = search(test, false);
        let (back, asked) = search(test, true);
        assert_eq!(anew.len(), back.len(), "test {i}");
        for (n, (a, b)) in anew.iter().zip(&back).enumerate() {
            assert_eq!(a, b, "test {i}, execution {n}");
        }
        assert!(
            anew.len() > 20,
            "test {i}: {} executions, {:.200}",
            anew.len(),
            anew[0]
        );
        assert!(
            asked < all,
            "test {i}: {asked} of {all} choices were asked for"
        );
    }
}

/// As far back as choices near the end.
#[test]
fn random_programs_are_gone_back_in() {
    for round in 0..number("SMALL_AGAIN", 40) {
        let (program, config): (Box<dyn Program>, _) = match round % 2 {
            0 => random_program(round / 2),
            _ => (Box::new(Mixture::new(round)), Mixture::new(round).config()),
        };
        let test = |sim: &Sim| Ok(format!("{:?}", program.run(sim)?));
        let [(anew, _), (back, _)] =
            [false, true].map(|goes_back| search_on(&config, &test, 40, goes_back));
        for (n, (a, b)) in anew.iter().zip(&back).enumerate() {
            assert_eq!(a, b, "round {round}, execution {n}: {program:?}");
        }
        assert_eq!(anew.len(), back.len(), "round {round}");
    }
}

/// Inputs that differ from execution to execution: what was seen with another one is not gone back to.
#[test]
fn what_the_test_does_itself_is_not_passed_over() {
    static NTH: AtomicU64 = AtomicU64::new(1);
    let test: Test = |sim| {
        /// `OP_COPY` of a word of user memory, and `OP_INC` of another.
        const SCRIPTS: [[u8; 8]; 8] = {
            let mut scripts = [[0; 8]; 8];
            (scripts[0][0], scripts[1][0], scripts[1][1]) = (14, 1, 1);
            scripts
        };
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let script = |n: u32| ProgramInput::context(&n.to_le_bytes());
        let loader = EbpfLoader::new().set_global("scripts", &SCRIPTS);
        let mut bpf = loader.load(sim, WORLDS)?;
        sim.write_user(sim.main_task(), 0x10000, &nth.to_le_bytes());
        sim.spawn_on(Cpu(1), bpf.program("run")?, script(1))?;
        bpf.program_mut("run")?.test_run(script(0))?;
        let words: [u64; 4] = bpf.global("words")?;
        for cpu in [Cpu(0), Cpu(1)] {
            sim.spawn_on(cpu, bpf.program("run")?, script(1))?;
        }
        sim.run_until_idle()?;
        Ok((words[0] == nth).to_string())
    };
    let (seen, _) = search(&test, true);
    assert!(seen.len() > 20);
    let old = seen.iter().filter(|saw| !saw.contains("true")).count();
    assert_eq!(old, 0, "of {}: {:.200}", seen.len(), seen[0]);
}
