//! One frame: the state, the ring, rates, claims and consumers.

use indicatif::HumanCount;
use kaelix_wal::Lsn;
use kaelix_wal::inspect::{Live, SegmentState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline};

use super::history::History;
use crate::log::bytes;
use crate::stat::symbol;

/// Rows of the list of claims, and of that of consumers.
const LIST_ROWS: u16 = 6;

pub fn draw(frame: &mut Frame<'_>, history: &History) {
    let Some(live) = &history.now else { return };
    let width = usize::from(frame.area().width.max(20)) - 2;
    let ring = ring(history, live, width);
    let rows = [
        Constraint::Length(6),
        Constraint::Length(ring.len() as u16 + 1),
        Constraint::Length(6),
        Constraint::Length(LIST_ROWS + 1),
        Constraint::Length(LIST_ROWS + 1),
        Constraint::Min(1),
    ];
    let [head, middle, rates, claims, consumers, foot] = Layout::vertical(rows).areas(frame.area());
    section(frame, head, &title(history), state(history, live));
    section(frame, middle, "the ring, a character a segment", ring);
    draw_rates(frame, rates, history, live);
    section(frame, claims, "open claims, oldest first", self::claims(live));
    section(frame, consumers, "consumers, slowest first", self::consumers(history, live));
    let words = [
        "Not known from outside: the latency of single syncs, and how long producers wait; the",
        "process's own metrics have both. Ages are since this view began.   q quits",
    ];
    let words = words.map(|words| Line::styled(words, Style::new().add_modifier(Modifier::DIM)));
    frame.render_widget(Paragraph::new(words.to_vec()), foot);
}

fn section(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {title} "));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn title(history: &History) -> String {
    format!("kaelix-wal top: {}", history.dir.display())
}

fn state<'a>(history: &History, live: &Live) -> Vec<Line<'a>> {
    let writer = match (live.writer, live.clean_shutdown) {
        (Some(process), _) => format!("open in process {process}"),
        (None, true) => "closed in order".to_owned(),
        (None, false) => "nobody has it open, and it was not closed".to_owned(),
    };
    let capacity = history.geometry.capacity();
    let held = live.committed.get().saturating_sub(live.trimmed.get());
    let used = 100.0 * held as f64 / capacity as f64;
    let distance = |from: Lsn, to: Lsn| bytes(to.get().saturating_sub(from.get()));
    let position = |name: &str, lsn: Lsn, words: String| {
        Line::from(format!(" {name:<10}{:>18}  {words}", lsn.get()))
    };
    let mut first = vec![Span::from(format!(
        " {writer}; epoch {}; {used:.1} % of {} retained",
        live.epoch,
        bytes(capacity)
    ))];
    if live.poisoned {
        let alarm = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        first.push(Span::styled("  POISONED: a sync failed", alarm));
    }
    let proven = format!("{} not proven durable", distance(live.durable, live.committed));
    let claimed = format!("{} claimed beyond", distance(live.committed, live.claimed));
    vec![
        Line::from(first),
        position("trimmed", live.trimmed, format!("{} retained", bytes(held))),
        position("durable", live.durable, proven),
        position("committed", live.committed, claimed),
    ]
}

/// A character a segment, and below it where the watermarks stand. Neighbours share a character
/// if there are more segments than columns; the fuller state is shown.
fn ring<'a>(history: &History, live: &Live, width: usize) -> Vec<Line<'a>> {
    let map = &live.segment_map;
    let share = map.len().div_ceil(width).max(1);
    let weight = |state: SegmentState| match state {
        SegmentState::Active => 5,
        SegmentState::Unreadable => 4,
        SegmentState::Sealed => 3,
        SegmentState::Recycling => 2,
        SegmentState::Reclaimable => 1,
        _ => 0,
    };
    let shown = map.chunks(share).map(|chunk| {
        let state = chunk.iter().map(|segment| segment.state).max_by_key(|state| weight(*state));
        let state = state.unwrap_or(SegmentState::Unused);
        Span::styled(symbol(state).to_string(), style(state))
    });
    let spans: Vec<_> = [Span::from(" ")].into_iter().chain(shown).collect();
    let mut marks = vec![' '; map.len().div_ceil(share) + 1];
    let segments = u64::from(history.geometry.segments());
    for (mark, lsn) in [('t', live.trimmed), ('d', live.durable), ('c', live.committed)] {
        let slot = lsn.get() / history.geometry.segment_size() % segments;
        marks[slot as usize / share + 1] = mark;
    }
    let marks: String = marks.into_iter().collect();
    vec![
        Line::from(spans),
        Line::from(marks),
        Line::from(
            " # sealed  > active  - reclaimable  . clean  _ unused   t trimmed  d durable  c \
             committed",
        ),
    ]
}

fn style(state: SegmentState) -> Style {
    Style::new().fg(match state {
        SegmentState::Active => Color::Green,
        SegmentState::Sealed => Color::Blue,
        SegmentState::Unreadable => Color::Red,
        _ => Color::DarkGray,
    })
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, history: &History, live: &Live) {
    let rate = history.rates.back().copied().unwrap_or(0);
    let after = match history.durable_after {
        Some(after) => format!("{after:.1?} at most, until what was committed was proven durable"),
        None if live.durable >= live.committed => "all that is committed is durable".to_owned(),
        None => "nothing was seen to become durable yet".to_owned(),
    };
    let title = format!(
        " {}/s of log, about {} records/s; {}/s released ",
        bytes(rate),
        HumanCount(history.records_rate as u64),
        bytes(history.trim_rate as u64)
    );
    let block = Block::new().borders(Borders::TOP).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [graph, words] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(inner);
    let from = history.rates.len().saturating_sub(usize::from(graph.width));
    let rates: Vec<u64> = history.rates.iter().skip(from).copied().collect();
    frame.render_widget(Sparkline::default().data(&rates), graph);
    frame.render_widget(Paragraph::new(format!(" durable after: {after}")), words);
}

fn claims<'a>(live: &Live) -> Vec<Line<'a>> {
    if live.claims.is_empty() {
        return vec![Line::from(" none")];
    }
    let claim = |claim: &kaelix_wal::inspect::OpenClaim| {
        let hole = if claim.is_hole { "holds committed records back" } else { "" };
        let text = format!(
            " LSN {:>18}  {:>10}  seen for {:>8.1?}  {hole}",
            claim.lsn.get(),
            bytes(claim.bytes.into()),
            claim.age
        );
        Line::from(text)
    };
    live.claims.iter().take(usize::from(LIST_ROWS)).map(claim).collect()
}

fn consumers<'a>(history: &History, live: &Live) -> Vec<Line<'a>> {
    if history.consumers.is_empty() {
        return vec![Line::from(" none")];
    }
    let mut slowest: Vec<_> = history.consumers.iter().collect();
    slowest.sort_by_key(|consumer| consumer.position.lsn);
    let consumer = |consumer: &&kaelix_wal::inspect::ObservedConsumer| {
        let lsn = consumer.position.lsn;
        let lag = bytes(live.committed.get().saturating_sub(lsn.get()));
        let name: String = consumer.name.escape_debug().take(40).collect();
        let cut = if consumer.cut.is_some() { "cut: its owner has to reset it" } else { "" };
        Line::from(format!(" {name:<40}  LSN {:>18}  {lag:>10} behind  {cut}", lsn.get()))
    };
    slowest.iter().take(usize::from(LIST_ROWS)).map(consumer).collect()
}
