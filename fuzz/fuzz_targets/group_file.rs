//! An application file of either form: what is accepted can be planned and drawn, what is refused is refused with places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_group::plan::GroupId;
use mutirao_group::{Application, draw, wiring};

fuzz_target!(|text: &str| {
    match Application::read(text, |_, _| None) {
        Ok(application) => {
            let (plans, pipes) = wiring::plan(&application, GroupId(1), "group", None, 0);
            assert_eq!(plans.len(), application.processes.len());
            let ends = plans.iter().flat_map(|plan| plan.inputs.iter().chain(&plan.outputs));
            let ends: usize = ends.map(|port| port.peers.len()).sum();
            let edges: usize = plans.iter().map(|plan| plan.collectives.len()).sum();
            assert_eq!(ends + 2 * edges, 2 * pipes.len());
            assert!(draw::svg(&application).ends_with("</svg>\n"));
            assert!(!draw::text(&application).is_empty() && draw::dot(&application).ends_with("}\n"));
        }
        Err(problems) => {
            let last = text.lines().count().max(1);
            assert!(!problems.is_empty());
            // Where a text ends within a line that is not there yet, that is the next one.
            assert!(problems.iter().all(|problem| problem.at.line >= 1 && problem.at.line <= last + 1));
        }
    }
});
