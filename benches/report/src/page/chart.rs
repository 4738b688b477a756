//! Line charts and dot charts as SVG, small enough for a phone: no script, colours by class.

use crate::text::number;

const WIDTH: f64 = 360.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;
const PLOT_HEIGHT: f64 = 170.0;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One of four colours.
    Colour(usize),
    /// What cannot be beaten: grey, dashed.
    Floor,
}

impl Style {
    fn class(self) -> String {
        match self {
            Style::Colour(n) => format!("s{}", n % 4),
            Style::Floor => "sf".to_owned(),
        }
    }
}

pub struct Series {
    pub name: String,
    pub style: Style,
    pub points: Vec<(f64, f64)>,
}

/// An axis: linear from nothing, or logarithmic.
pub struct Axis {
    pub label: &'static str,
    pub logarithmic: bool,
    /// How a value on it is written.
    pub text: fn(f64) -> String,
    /// Places that are named; if there are none, they are chosen.
    pub ticks: Vec<f64>,
}

/// Where values lie on an axis.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Scale {
        let high = values.clone().fold(f64::MIN, f64::max);
        let low = values.fold(f64::MAX, f64::min);
        match axis.logarithmic {
            true => Scale { low: low.max(1e-9), high: high.max(low * 1.01), logarithmic: true },
            false => {
                Scale { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, logarithmic: false }
            }
        }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Round values, three to six of them.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
            let of = |steps: &[f64]| -> Vec<f64> {
                let all = decades.clone().flat_map(|decade| {
                    steps.iter().map(move |step| step * 10_f64.powi(decade)).collect::<Vec<_>>()
                });
                all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
            };
            return [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]]
                .into_iter()
                .map(of)
                .find(|ticks| ticks.len() >= 3)
                .unwrap_or_else(|| vec![self.low, self.high]);
        }
        let raw = (self.high - self.low) / 4.0;
        let size = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * size).into_iter();
        let step = step.filter(|step| *step >= raw).fold(f64::MAX, f64::min);
        let count = (self.high / step).floor() as u32;
        (0..=count).map(|n| f64::from(n) * step).collect()
    }
}

/// Lines over one another, with a key underneath.
pub fn lines(x: &Axis, y: &Axis, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        return String::new();
    }
    let across = Scale::of(x, points().map(|point| point.0));
    let up = Scale::of(y, points().map(|point| point.1));
    let height = TOP + PLOT_HEIGHT + BOTTOM;
    let right = WIDTH - RIGHT;
    let at_x = |value| LEFT + across.place(value) * (right - LEFT);
    let at_y = |value| TOP + (1.0 - up.place(value)) * PLOT_HEIGHT;
    let label = escape(&format!("{} over {}", y.label, x.label));
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">");
    for tick in up.ticks() {
        let (at, text) = (at_y(tick), escape(&(y.text)(tick)));
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            at + 4.0
        ));
    }
    let ticks = if x.ticks.is_empty() { across.ticks() } else { x.ticks.clone() };
    for tick in ticks.iter().filter(|tick| (across.low..=across.high).contains(*tick)) {
        let text = escape(&(x.text)(*tick));
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            at_x(*tick),
            TOP + PLOT_HEIGHT + 16.0
        ));
    }
    svg.push_str(&format!(
        "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <text x=\"0\" y=\"10\">{}</text>",
        height - 3.0,
        escape(x.label),
        escape(y.label)
    ));
    for Series { name, style, points } in series {
        let class = style.class();
        let place = |(x, y): &(f64, f64)| format!("{:.1} {:.1}", at_x(*x), at_y(*y));
        let path: Vec<String> = points.iter().map(place).collect();
        svg.push_str(&format!("<path class=\"{class}\" d=\"M{}\"/>", path.join("L")));
        for point in points {
            let (cx, cy) = (at_x(point.0), at_y(point.1));
            let title = escape(&format!("{name}: {} at {}", (y.text)(point.1), (x.text)(point.0)));
            svg.push_str(&format!(
                "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2.6\">\
                 <title>{title}</title></circle>"
            ));
        }
    }
    svg.push_str("</svg>");
    svg + &key(series)
}

/// Which line is which.
fn key(series: &[Series]) -> String {
    let items: Vec<String> = series
        .iter()
        .map(|series| {
            let class = series.style.class();
            format!(
                "<li><svg viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"{class}\" \
                 d=\"M0 4L24 4\"/></svg>{}</li>",
                escape(&series.name)
            )
        })
        .collect();
    format!("<ul class=\"key\">{}</ul>", items.concat())
}

/// One row of a dot chart.
pub struct Dot {
    pub name: String,
    pub style: Style,
    pub value: f64,
    /// How the value is written.
    pub text: String,
}

/// A dot for each name, on one logarithmic scale: figures that differ by a hundred stay readable.
pub fn dots(rows: &[Dot]) -> String {
    const ROW: f64 = 34.0;
    let values = || rows.iter().map(|row| row.value).filter(|value| *value > 0.0);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    if low > high {
        return String::new();
    }
    // Room on the left for the least of them.
    let scale = Scale { low: low / 2.0, high: high.max(low * 1.5), logarithmic: true };
    let right = WIDTH - 8.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", ROW * rows.len() as f64);
    for (place, Dot { name, style, value, text }) in rows.iter().enumerate() {
        let (top, class) = (place as f64 * ROW, style.class());
        let (name, text) = (escape(name), escape(text));
        svg.push_str(&format!(
            "<text x=\"0\" y=\"{:.1}\">{name}</text>\
             <text class=\"value\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            top + 13.0,
            top + 13.0
        ));
        let line = top + 23.0;
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"0\" x2=\"{right}\" y1=\"{line}\" y2=\"{line}\"/>"
        ));
        if *value > 0.0 {
            let at = 4.0 + scale.place(*value) * (right - 8.0);
            svg.push_str(&format!(
                "<path class=\"{class}\" d=\"M0 {line}L{at:.1} {line}\"/>\
                 <circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{line}\" r=\"4.5\">\
                 <title>{name}: {text}</title></circle>"
            ));
        }
    }
    svg + "</svg>"
}

/// A tick's number without needless digits.
pub fn plain(value: f64) -> String {
    let text = number(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Text as HTML and SVG take it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(logarithmic: bool) -> Axis {
        Axis { label: "x", logarithmic, text: plain, ticks: Vec::new() }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |logarithmic, values: &[f64]| {
            Scale::of(&axis(logarithmic), values.iter().copied()).ticks()
        };
        assert_eq!(ticks(false, &[3.0, 36.0]), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(ticks(true, &[0.05, 2000.0]), [0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(ticks(true, &[2.0, 30.0]), [3.0, 10.0, 30.0]);
        assert!(ticks(true, &[5.0, 5.0]).len() <= 6);
    }

    #[test]
    fn every_point_lies_in_the_plot() {
        let series = Series {
            name: "a <b>".to_owned(),
            style: Style::Floor,
            points: vec![(1.0, 2.0), (32.0, 0.5)],
        };
        let svg = lines(&axis(true), &axis(false), &[series]);
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("NaN"), "{svg}");
        assert!(svg.contains(&format!("M{LEFT:.1} {TOP:.1}L{:.1}", WIDTH - RIGHT)), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(lines(&axis(true), &axis(true), &[]), "");
        assert_eq!(dots(&[]), "");
    }
}
