//! Plots of what was measured, each as SVG and PNG, if `KAELIX_BENCH_PLOTS` names a folder.

use std::error::Error;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

const SIZE: (u32, u32) = (960, 600);
const COLORS: [RGBColor; 4] =
    [RGBColor(120, 120, 120), RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];

type Drawn = Result<(), Box<dyn Error>>;
/// A name, and points.
pub type Series = (String, Vec<(f64, f64)>);

/// Gives a font to every plot, Criterion's too: a machine need not have one, and plotters, built to
/// be given its fonts, looks for none.
pub fn register_a_font() {
    let font = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    assert!(font.is_ok(), "the font that is built in is not understood");
}

/// The latency of each percentile, both axes logarithmic: 90 %, 99 %, 99.9 % at equal distances.
pub fn percentiles(name: &str, title: &str, times: &[(&str, &Histogram<u64>)]) {
    let series: Vec<Series> = times
        .iter()
        .map(|(name, times)| {
            let points = (0..=56).map(|step| {
                let rarity = 2.0 * 10_f64.powf(f64::from(step) / 12.0);
                let nanos = times.value_at_quantile(1.0 - 1.0 / rarity).max(1);
                (rarity, nanos as f64 / 1e3)
            });
            (name.to_string(), points.collect())
        })
        .collect();
    let labels = ("one in so many is slower", "microseconds");
    both(name, |plot| lines(plot, title, labels, &series));
}

/// Something that depends on a number of threads.
pub fn scaling(name: &str, title: &str, labels: (&str, &str), series: &[Series]) {
    both(name, |plot| lines(plot, title, labels, series));
}

enum Plot {
    Svg(PathBuf),
    Png(PathBuf),
}

/// Draws twice. A plot that cannot be drawn is no reason to lose the figures.
fn both(name: &str, draw: impl Fn(Plot) -> Drawn) {
    let Some(folder) = std::env::var_os("KAELIX_BENCH_PLOTS").map(PathBuf::from) else {
        return;
    };
    let drawn = draw(Plot::Svg(folder.join(format!("{name}.svg"))))
        .and_then(|()| draw(Plot::Png(folder.join(format!("{name}.png")))));
    if let Err(error) = drawn {
        println!("{name} could not be drawn in {}: {error}", folder.display());
    }
}

fn lines(plot: Plot, title: &str, labels: (&str, &str), series: &[Series]) -> Drawn {
    match plot {
        Plot::Svg(path) => {
            chart(SVGBackend::new(&path, SIZE).into_drawing_area(), title, labels, series)
        }
        Plot::Png(path) => {
            chart(BitMapBackend::new(&path, SIZE).into_drawing_area(), title, labels, series)
        }
    }
}

fn chart<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    title: &str,
    (x_label, y_label): (&str, &str),
    series: &[Series],
) -> Drawn
where
    B::ErrorType: 'static,
{
    let points = || series.iter().flat_map(|(_, points)| points);
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        points()
            .map(value)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((left..right).log_scale(), (bottom * 0.8..top * 1.25).log_scale())?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(WHITE).draw()?;
    for ((name, points), color) in series.iter().zip(COLORS.iter().cycle()) {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
