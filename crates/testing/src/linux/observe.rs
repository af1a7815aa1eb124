//! One run of one program of a fixture, as recordings want it.

use std::collections::BTreeMap;
use std::time::Duration;

use bpfsim_loader::Object;

use super::object::{KernelFacts, ObjectError};
use super::{Input, Linux};
use crate::recording::{Outcome, RecordedProgram, entries, to_hex};

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
}
