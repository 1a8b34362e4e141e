//! `completions` and `man`: what is made of the arguments' own description.

use std::io::Write;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{Failure, OK};
use crate::output::stdout;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    // Made before it is written: a reader who has gone is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "callsign", &mut script);
    write(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<u8, Failure> {
    let mut program = Cli::command();
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => {
            let names: Vec<_> = program.get_subcommands().map(|one| one.get_name().to_owned()).collect();
            let Some(found) = program.find_subcommand(name) else {
                return Err(Failure::input(format!(
                    "there is no subcommand {name:?}, and so no man page of it: there are {}",
                    names.join(", ")
                )));
            };
            found.clone()
        }
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    write(with_sections(&String::from_utf8_lossy(&page)).as_bytes())
}

/// What help ends with is one section to the generator, and several to a reader of man pages.
fn with_sections(page: &str) -> String {
    let mut sectioned = String::new();
    for line in page.lines() {
        sectioned.push_str(match line {
            ".SH EXTRA" => ".SH NOTES",
            "Exit codes:" => ".SH EXIT STATUS",
            "Example:" | "Examples:" => ".SH EXAMPLES",
            line => line,
        });
        sectioned.push('\n');
    }
    // Where there are no notes, another section follows at once.
    sectioned.replace(".SH NOTES\n.SH", ".SH")
}

fn write(bytes: &[u8]) -> Result<u8, Failure> {
    let mut out = stdout();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(OK)
}
