//! One run of one program of a fixture, as recordings want it.

use std::collections::BTreeMap;
use std::time::Duration;

use bpfsim_loader::Object;

use super::object::{KernelFacts, ObjectError};
use super::{Input, Linux};
use crate::recording::{Outcome, RecordedProgram, entries, to_hex};
use crate::test_runs::{Answer, Case};

impl Linux {
    /// Loads one program alone, runs it once, waits and reads the maps.
    ///
    /// # Errors
    /// It could not be loaded, run or read.
    pub fn observe(
        &self,
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
        let loaded = self.load_object(facts, object, &[name])?;
        let prog = loaded
            .program(name)
            .ok_or_else(|| unsupported("a program that is not there"))?;
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
        &self,
        facts: &KernelFacts,
        object: &Object,
        case: &Case,
    ) -> Result<Answer, String> {
        let name = case.program.as_str();
        let loaded = self.load_object(facts, object, &[name]);
        let loaded = loaded.map_err(|e| e.to_string())?;
        let program = loaded.program(name).ok_or(format!("no program {name}"))?;
        let mut answer = program.answer(case);
        if answer.errno == 0 {
            let noted = loaded.map(".bss").ok_or("no .bss")?;
            answer.seen = noted.lookup(&[0; 4]).map_err(|e| e.to_string())?;
        }
        Ok(answer)
    }
}
