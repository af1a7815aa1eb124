//! For trace viewers: Chrome's trace events, which Perfetto reads too. A process is a CPU, a thread
//! a kind of context on it.

use super::{Kind, Step, Timeline};
use serde_json::{Value, json};

impl Timeline {
    /// As JSON.
    pub fn perfetto(&self) -> String {
        let mut events = Vec::new();
        for (tid, lane) in self.lanes.iter().enumerate() {
            let name = |what: &str, name: String| json!({ "name": what, "ph": "M", "pid": lane.cpu, "tid": tid, "args": { "name": name } });
            events.push(name("process_name", format!("cpu {}", lane.cpu)));
            events.push(name("thread_name", lane.level.to_string()));
        }
        for (i, step) in self.steps.iter().enumerate() {
            self.step(i, step, &mut events);
        }
        json!({ "displayTimeUnit": "ns", "otherData": { "title": self.title, "failure": self.failure }, "traceEvents": events })
            .to_string()
    }

    fn step(&self, i: usize, step: &Step, events: &mut Vec<Value>) {
        let pid = self.lanes.get(step.lane).map_or(0, |l| l.cpu);
        let line = step
            .line
            .as_ref()
            .map(|l| format!("{}:{} {}", l.file, l.line, l.text));
        let event = |name: &str, ph: &str| {
            json!({
                "name": name, "ph": ph, "cat": "bpf", "pid": pid, "tid": step.lane,
                "ts": step.at as f64 / 1000.0,
                "args": { "what": step.text, "line": line, "step": i },
            })
        };
        let flow = |ph: &str, id: usize| {
            let mut flow = event("arms", ph);
            flow["id"] = json!(id);
            if ph == "f" {
                flow["bp"] = json!("e");
            }
            flow
        };
        match step.kind {
            Kind::Begin => events.push(event(&step.who, "B")),
            Kind::End => events.push(event(&step.who, "E")),
            _ => {
                let mut instant = event(&step.text, "i");
                instant["s"] = json!("t");
                events.push(instant);
            }
        }
        if let Some(from) = step.armed_by {
            events.push(flow("f", from));
        }
        if self.steps.iter().any(|s| s.armed_by == Some(i)) {
            events.push(flow("s", i));
        }
    }
}
