//! One run of one program of a fixture, as recordings want it.

use std::collections::BTreeMap;
use std::time::Duration;

use bpfsim_loader::Object;

use super::object::{KernelFacts, ObjectError};
use super::{Input, Linux, Prog, TestData, TestRunAs};
use crate::recording::{Outcome, RecordedProgram, entries, to_hex};
use crate::test_runs::{Answer, Case};

/// Loads one program alone, runs it once, waits and reads the maps.
///
/// # Errors
/// It could not be loaded, run or read.
pub fn observe(
    linux: &Linux,
    facts: &KernelFacts,
    object: &Object,
    name: &str,
    program: &RecordedProgram,
    maps: &[String],
    settle: Duration,
) -> Result<Outcome, ObjectError> {
    let unsupported = |what| ObjectError::Unsupported {
        name: name.to_string(),
        what,
    };
    let names = [program.before.as_deref(), Some(name)].map(|n| n.unwrap_or(name));
    let first = usize::from(program.before.is_none());
    let loaded = linux.load_object(facts, object, &names[first..])?;
    let prog = loaded
        .program(name)
        .ok_or_else(|| unsupported("a program that is not there"))?;
    if let Some(before) = program.before.as_deref().and_then(|b| loaded.program(b)) {
        let ran = before.test_run(&Input::default());
        ran.map_err(|errno| ObjectError::Run {
            name: name.to_string(),
            errno,
        })?;
    }
    let packet = program
        .packet()
        .map_err(|_| unsupported("a packet that is not hexadecimal"))?;
    let input = match program.data_in {
        Some(_) => Input::packet(&packet),
        None => Input::default(),
    };
    let ran = prog.test_run(&input).map_err(|errno| ObjectError::Run {
        name: name.to_string(),
        errno,
    })?;
    std::thread::sleep(settle);
    let mut found = BTreeMap::new();
    for name in maps {
        let map = loaded
            .map(name)
            .ok_or_else(|| unsupported("a map that is not there"))?;
        let pairs = map.entries().map_err(|errno| ObjectError::Map {
            name: name.clone(),
            errno,
        })?;
        found.insert(name.clone(), entries(pairs));
    }
    Ok(Outcome {
        return_value: ran.retval as i32,
        times: 1,
        data_out: program.data_in.as_ref().map(|_| to_hex(&ran.data_out)),
        maps: found,
    })
}

/// Loads the program of a case alone, runs it, and reads what it noted.
///
/// # Errors
/// What did not work, in words; that the run itself is refused is no error.
pub fn test_run_case(
    linux: &Linux,
    facts: &KernelFacts,
    object: &Object,
    case: &Case,
) -> Result<Answer, String> {
    let name = case.program.as_str();
    let loaded = linux.load_object(facts, object, &[name]);
    let loaded = loaded.map_err(|e| e.to_string())?;
    let program = loaded.program(name).ok_or(format!("no program {name}"))?;
    let mut answer = answer(program, case);
    if answer.errno == 0 {
        let noted = loaded.map(".bss").ok_or("no .bss")?;
        answer.seen = noted.lookup(&[0; 4]).map_err(|e| e.to_string())?;
    }
    Ok(answer)
}

/// Runs a program as a case says; gives errno, or return value, packet and context.
fn answer(program: &Prog, case: &Case) -> Answer {
    let has_packet = !matches!(
        case.program.as_str(),
        "on_lookup" | "on_tracepoint" | "on_call"
    );
    let has_ctx = !matches!(case.program.as_str(), "on_tracepoint" | "on_call");
    let room = |asked: Option<u32>, given: usize, has: bool| match (has, asked) {
        (false, _) => 0,
        (true, Some(n)) => n as usize,
        (true, None) => given + 8192,
    };
    let mut data_out = vec![0; room(case.data_size_out, case.data.len(), has_packet)];
    // Without a context in, one out would count as a context of zeros.
    let wants_ctx = has_ctx && !case.ctx.is_empty();
    let mut ctx_out = vec![0; room(case.ctx_size_out, case.ctx.len(), wants_ctx)];
    let mut ctx_in = case.ctx.clone();
    let how = TestRunAs {
        repeat: case.repeat,
        flags: case.flags,
        cpu: case.cpu,
        batch_size: case.batch_size,
    };
    let data = TestData {
        data_in: &case.data,
        data_out: &mut data_out,
        ctx_in: &mut ctx_in,
        ctx_out: &mut ctx_out,
    };
    let [retval, data_size, ctx_size] = match program.test_run_as(how, data) {
        Ok(ran) => ran,
        Err(errno) => {
            return Answer {
                errno: u32::from(errno.0),
                ..Answer::default()
            };
        }
    };
    data_out.truncate(data_size as usize);
    ctx_out.truncate(ctx_size as usize);
    Answer {
        errno: 0,
        retval,
        data: data_out,
        ctx: if has_ctx { ctx_out } else { ctx_in },
        seen: Vec::new(),
    }
}
