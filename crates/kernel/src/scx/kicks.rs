//! CPUs that were kicked and have not been told yet.

use super::consts::kick;
use crate::ids::Cpu;

/// By whom, whom, how: each once.
#[derive(Clone, Default)]
pub(crate) struct Kicks(Vec<(Cpu, Cpu, u64)>);

impl Kicks {
    /// Other bits of the flags than the kernel's say nothing: each would be a kick of its own.
    pub fn add(&mut self, from: Cpu, to: Cpu, flags: u64) {
        let known = flags & (kick::IDLE | kick::PREEMPT | kick::WAIT);
        let kicked = (from, to, known);
        if !self.0.contains(&kicked) {
            self.0.push(kicked);
        }
    }

    pub fn take(&mut self) -> Vec<(Cpu, Cpu, u64)> {
        std::mem::take(&mut self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program may kick in a loop, with any number as flags.
    #[test]
    fn there_are_as_many_as_there_are_ways_to_kick() {
        let mut kicks = Kicks::default();
        for flags in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
            kicks.add(Cpu(0), Cpu(1), flags);
            kicks.add(Cpu(0), Cpu(1), flags);
        }
        let all = kick::IDLE | kick::PREEMPT | kick::WAIT;
        let ways = [kick::IDLE, kick::PREEMPT, kick::WAIT, 0, all];
        let mut told: Vec<u64> = kicks.take().into_iter().map(|(.., flags)| flags).collect();
        told.sort_unstable();
        let mut ways = ways.to_vec();
        ways.sort_unstable();
        assert_eq!(told, ways);
        assert!(kicks.is_empty());
        // Each CPU has its own.
        kicks.add(Cpu(0), Cpu(1), 0);
        kicks.add(Cpu(1), Cpu(0), 0);
        assert_eq!(kicks.take(), [(Cpu(0), Cpu(1), 0), (Cpu(1), Cpu(0), 0)]);
    }
}
