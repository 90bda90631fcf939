//! Where the demo writes: a terminal, on which the table is drawn over and over at one place, or plain lines.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::tcgetwinsize;

use crate::table::{Line, Look};

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR_LINE: &str = "\x1b[2K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colours: bool,
    // Lines that the next drawing replaces.
    drawn: usize,
}

impl Screen {
    /// A terminal where there is one that can do more than print, and `plain` does not forbid it.
    pub(crate) fn new(plain: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            terminal: !plain && !dumb && io::stdout().is_terminal(),
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            drawn: 0,
        }
    }

    /// Whether tables can be drawn in place.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text that stays.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let up = self.back();
        self.drawn = 0;
        writeln!(out, "{up}{text}")?;
        out.flush()
    }

    /// Leaves what was drawn where it is. Ctrl-C discards what a terminal has not shown yet, so after it nobody knows
    /// where the last drawing began.
    pub(crate) fn keep(&mut self) {
        self.drawn = 0;
    }

    /// Writes a line that the next words replace; nothing where that is impossible.
    pub(crate) fn progress(&mut self, text: &str) -> io::Result<()> {
        if self.terminal {
            self.draw(&[vec![(Look::Dim, text.to_owned())]])?;
        }
        Ok(())
    }

    /// Draws over what was drawn before, within the terminal's size.
    pub(crate) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout()).ok();
        let or = |size: Option<u16>, usual: usize| {
            let known = size.filter(|size| *size > 0);
            known.map_or(usual, usize::from)
        };
        let width = or(size.map(|size| size.ws_col), 100);
        let height = or(size.map(|size| size.ws_row), 40);
        let kept = lines.len().min(height.saturating_sub(1));
        let mut text = format!("{HIDE_CURSOR}{}", self.back());
        for line in lines.iter().take(kept) {
            text.push_str(CLEAR_LINE);
            text.push_str(&dressed(line, width.saturating_sub(1), self.colours));
            text.push('\n');
        }
        self.drawn = kept;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    // To where the last drawing began, with nothing below.
    fn back(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r{CLEAR_BELOW}"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // There is nobody left to tell that it failed.
            let _ = write!(io::stdout(), "{SHOW_CURSOR}");
            let _ = io::stdout().flush();
        }
    }
}

fn dressed(line: &Line, width: usize, colours: bool) -> String {
    let mut text = String::new();
    let mut room = width;
    for (look, piece) in line {
        let cut: String = piece.chars().take(room).collect();
        room = room.saturating_sub(cut.chars().count());
        let code = match look {
            Look::Plain => "",
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Bad => "31",
        };
        if colours && !code.is_empty() && !cut.is_empty() {
            text.push_str(&format!("\x1b[{code}m{cut}\x1b[0m"));
        } else {
            text.push_str(&cut);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_width_without_its_colours() {
        let line = vec![
            (Look::Good, "abc".to_owned()),
            (Look::Plain, "dé".to_owned()),
            (Look::Bad, "f".to_owned()),
        ];
        assert_eq!(dressed(&line, 10, false), "abcdéf");
        assert_eq!(dressed(&line, 4, false), "abcd");
        assert_eq!(dressed(&line, 3, true), "\x1b[32mabc\x1b[0m");
    }
}
