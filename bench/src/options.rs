//! The command line.

use std::path::PathBuf;

use crate::Fallible;
use crate::catalogue::WORKLOADS;
use crate::rounds::Scale;

/// What was asked for.
pub(crate) struct Plan {
    pub(crate) scale: Scale,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
    /// `None`: all.
    workloads: Option<Vec<String>>,
}

impl Plan {
    pub(crate) fn wants(&self, name: &str) -> bool {
        match &self.workloads {
            None => true,
            Some(wanted) => wanted.iter().any(|wanted| wanted == name),
        }
    }
}

/// `None`: help was asked for, and given.
pub(crate) fn parse(given: Vec<String>) -> Fallible<Option<Plan>> {
    let mut plan = Plan {
        scale: Scale::Full,
        json: None,
        plots: None,
        workloads: None,
    };
    let known = || {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.join(", ")
    };
    let mut given = given.into_iter();
    while let Some(argument) = given.next() {
        let mut value = |what: &str| -> Fallible<Option<PathBuf>> {
            let value = given
                .next()
                .ok_or_else(|| format!("{argument} needs a value: {what}"))?;
            Ok(Some(value.into()))
        };
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}\n\nworkloads: {}, none", known());
                return Ok(None);
            }
            "--quick" => plan.scale = Scale::Quick,
            "--json" => plan.json = value("the file to write")?,
            "--plots" => plan.plots = value("the folder to write to")?,
            _ if argument.starts_with('-') => {
                return Err(format!("{argument}: no such option\n{USAGE}").into());
            }
            "none" => _ = plan.workloads.get_or_insert_default(),
            _ if WORKLOADS.iter().any(|workload| workload.name == argument) => {
                plan.workloads.get_or_insert_default().push(argument);
            }
            _ => return Err(format!("{argument}: no such workload; there are {}, none", known()).into()),
        }
    }
    Ok(Some(plan))
}

const USAGE: &str = "bench [--quick] [--json FILE] [--plots DIR] [WORKLOAD..]

  --quick       less of everything: under a minute, for wrong answers, crashes and leaks
  --json FILE   all rows with all their rounds
  --plots DIR   plots as SVG; with the workload `none`, nothing else";
