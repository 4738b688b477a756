//! `top`: a log that another process writes, live, in the terminal.
//!
//! 1. It takes no lock and writes nothing to the log: a look is some reads of its file.
//! 2. However it ends, the terminal is as it was: a guard restores it, on errors and panics too.
//! 3. What cannot be known from outside is not shown, and the screen says so.

mod draw;
mod history;

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use kaelix_wal::inspect::LiveView;
use ratatui::backend::{CrosstermBackend, TestBackend};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

use self::history::History;
use crate::args::TopArgs;
use crate::sink::say;

/// The size of the frame that `--once` prints.
const ONCE_WIDTH: u16 = 100;
const ONCE_HEIGHT: u16 = 40;

pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    let context = || format!("cannot read the log in {}", args.dir.display());
    let mut view = LiveView::open(&args.dir).with_context(context)?;
    let mut history = History::new(&args.dir, view.observer().geometry());
    history.look(&mut view).with_context(context)?;
    let interval = Duration::from_secs_f64(args.interval);
    if args.once {
        std::thread::sleep(interval);
        history.look(&mut view).with_context(context)?;
        return once(&history);
    }
    let mut screen = Screen::enter()
        .context("cannot use the terminal; `top --once` prints one frame where there is none")?;
    loop {
        screen.draw(|frame| draw::draw(frame, &history))?;
        if wait(interval)? {
            return Ok(());
        }
        history.look(&mut view).with_context(context)?;
    }
}

fn once(history: &History) -> anyhow::Result<()> {
    let mut terminal = Terminal::new(TestBackend::new(ONCE_WIDTH, ONCE_HEIGHT))?;
    terminal.draw(|frame| draw::draw(frame, history))?;
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(usize::from(ONCE_WIDTH));
    let lines = cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    say(lines.join("\n").trim_end())
}

/// Waits so long, or until somebody wants to leave: then true.
fn wait(interval: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + interval;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !event::poll(left).context("cannot wait for the keyboard")? {
            return Ok(false);
        }
        match event::read().context("cannot read the keyboard")? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if is_control => return Ok(true),
                    _ => {}
                }
            }
            // Drawn at once in the new size.
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
}

/// Rule 2.
struct Screen(Terminal<CrosstermBackend<io::Stdout>>);

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        enable_raw_mode()?;
        let guard = Restore;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        std::mem::forget(guard);
        Ok(Self(terminal))
    }

    fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        self.0.draw(frame).context("cannot draw on the terminal")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(Restore);
        let _ = self.0.show_cursor();
    }
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // There is nobody left to tell of an error.
        let _ = execute!(io::stdout(), LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
