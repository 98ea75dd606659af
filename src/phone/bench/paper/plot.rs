//! One panel of grouped bars as SVG: a group for each number of clients, a bar for each series, a whisker from least to most.
//!
//! Owns: where what is drawn. Never knows what the figures mean. Text stays text, in whatever sans-serif there is, so widths are
//! estimated, on the generous side.

use crate::phone::bench::spread::Spread;
use plotters::coord::types::RangedCoordf64;
use plotters::coord::{Shift, cartesian::Cartesian2d};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::words;

#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    /// Under the title, in red: that it is a sketch.
    pub warning: Option<String>,
    /// Of the figures, which are given in ones and drawn in thousands.
    pub y_axis: String,
    pub x_axis: String,
    pub groups: Vec<String>,
    pub series: Vec<Series>,
    /// What the diamonds are, if there are any.
    pub diamond: String,
    /// What hollow bars are, if there are any.
    pub hollow: String,
}

#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub colour: RGBColor,
    /// One for each group. None: not measured.
    pub bars: Vec<Option<Bar>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bar {
    pub spread: Spread,
    pub hollow: bool,
    /// Another figure that is shown as a diamond on the same bar.
    pub diamond: Option<f64>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const ALARM: RGBColor = RGBColor(0xb0, 0x00, 0x20);

/// Pixels.
const LEAST_WIDTH: u32 = 500;
const PLOT_HEIGHT: u32 = 300;
const BAR: u32 = 38;
const GAP: u32 = 30;
const LEFT: u32 = 72;
const BELOW: u32 = 56;
const MARGIN: u32 = 14;
const LINE: i32 = 22;
const TITLE: i32 = 17;
const TEXT: i32 = 14;
const NUMBER: i32 = 13;
/// Of a character, in parts of the font's size. DejaVu Sans, the widest of the usual ones, has 0.6 on average.
pub const CHARACTER: f64 = 0.62;
/// Of a group's place, what its bars take.
const FILLED: f64 = 0.86;

/// The whole SVG.
#[must_use]
pub fn svg(panel: &Panel) -> String {
    let mut text = String::new();
    let legend = Legend::of(panel);
    let head = MARGIN as i32 + LINE * (1 + i32::from(panel.warning.is_some()) + legend.lines) + 8;
    let size = (width(panel), head.unsigned_abs() + PLOT_HEIGHT + BELOW);
    let drawn = draw(panel, &legend, &SVGBackend::with_string(&mut text, size).into_drawing_area(), head);
    // Into a string there is nothing that can fail; the error type is the backend's for files.
    debug_assert!(drawn.is_ok());
    text
}

fn width(panel: &Panel) -> u32 {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / 1_000);
    let group = count(panel.series.len()) * BAR + GAP;
    (LEFT + 2 * MARGIN + count(panel.groups.len()) * group).max(LEAST_WIDTH)
}

fn draw<'a>(panel: &Panel, legend: &Legend, root: &Area<'a>, head: i32) -> Drawn<'a> {
    root.fill(&WHITE)?;
    let (left, mut y) = (MARGIN as i32, MARGIN as i32);
    root.draw(&Text::new(panel.title.clone(), (left, y), font(TITLE).style(FontStyle::Bold).color(&INK)))?;
    if let Some(warning) = &panel.warning {
        y += LINE;
        root.draw(&Text::new(warning.clone(), (left, y), font(TEXT).style(FontStyle::Bold).color(&ALARM)))?;
    }
    legend.draw(root, y + LINE + 4)?;
    let (_, plot) = root.split_vertically(head);
    bars(panel, &plot)?;
    root.present()
}

fn bars<'a>(panel: &Panel, area: &Area<'a>) -> Drawn<'a> {
    let groups = panel.groups.len();
    let most = panel.series.iter().flat_map(|series| &series.bars).flatten().map(Bar::top).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_left(6)
        .margin_right(MARGIN)
        .x_label_area_size(BELOW)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(-0.5..groups as f64 - 0.5, 0.0..most * 1.12)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(PALE)
        .axis_style(INK)
        .y_labels(7)
        // The groups' names are no figures on a scale: they are set below.
        .x_labels(0)
        .set_tick_mark_size(LabelAreaPosition::Bottom, 0)
        .y_label_formatter(&|&figure| axis_number(figure))
        .label_style(font(TEXT).color(&INK))
        .axis_desc_style(font(TEXT).color(&INK))
        .x_desc(panel.x_axis.clone())
        .y_desc(format!("thousand {}", panel.y_axis))
        .draw()?;
    let under = font(TEXT).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
    for (group, name) in panel.groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64, 0.0));
        let (left, top) = area.get_base_pixel();
        area.draw(&Text::new(name.clone(), (x - left, y - top + 8), under.clone()))?;
    }
    let bar = FILLED / panel.series.len().max(1) as f64;
    for (n, series) in panel.series.iter().enumerate() {
        for (group, of) in series.bars.iter().enumerate() {
            let left = group as f64 - FILLED / 2.0 + n as f64 * bar;
            one_bar(&chart, of.as_ref(), series.colour, (left, left + bar))?;
        }
    }
    Ok(())
}

fn axis_number(figure: f64) -> String {
    let number = format!("{:.2}", figure / 1e3);
    number.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn one_bar<'b>(chart: &Chart<'_, 'b>, bar: Option<&Bar>, colour: RGBColor, (from, to): (f64, f64)) -> Drawn<'b> {
    let centre = f64::midpoint(from, to);
    let over = Pos::new(HPos::Center, VPos::Bottom);
    let number = font(NUMBER).color(&INK).pos(over);
    let plot = chart.plotting_area();
    let Some(bar) = bar else { return plot.draw(&Text::new("\u{2013}", (centre, 0.0), number)) };
    let (pad, Spread { median, least, most }) = ((to - from) * 0.06, bar.spread);
    let (left, right) = (from + pad, to - pad);
    if bar.hollow {
        let outline = [(left, 0.0), (left, median), (right, median), (right, 0.0), (left, 0.0)];
        plot.draw(&PathElement::new(outline, colour.stroke_width(2)))?;
    } else {
        plot.draw(&Rectangle::new([(left, 0.0), (right, median)], colour.filled()))?;
    }
    if most > least {
        let cap = (to - from) * 0.15;
        plot.draw(&PathElement::new([(centre, least), (centre, most)], INK.stroke_width(1)))?;
        for end in [least, most] {
            plot.draw(&PathElement::new([(centre - cap, end), (centre + cap, end)], INK.stroke_width(1)))?;
        }
    }
    if let Some(figure) = bar.diamond {
        plot.draw(&(EmptyElement::at((centre, figure)) + diamond(WHITE.filled()) + outline()))?;
    }
    // Clear of the diamond where that is the highest.
    let lift = if bar.top() > most { -8 } else { -3 };
    plot.draw(&(EmptyElement::at((centre, bar.top())) + Text::new(words::thousands(median), (0, lift), number)))
}

impl Bar {
    fn top(&self) -> f64 {
        self.spread.most.max(self.diamond.unwrap_or(0.0))
    }
}

const DIAMOND: [(i32, i32); 5] = [(0, -5), (5, 0), (0, 5), (-5, 0), (0, -5)];

fn diamond(style: ShapeStyle) -> Polygon<(i32, i32)> {
    Polygon::new(DIAMOND, style)
}

fn outline() -> PathElement<(i32, i32)> {
    PathElement::new(DIAMOND, INK.stroke_width(1))
}

/// Of a size in pixels. The backend divides by 1.24.
fn font(pixels: i32) -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(pixels) * 1.24, FontStyle::Normal)
}

/// What stands before a text of the legend.
#[derive(Clone, Copy)]
enum Swatch {
    Filled(RGBColor),
    Hollow,
    Whisker,
    Diamond,
    Nothing,
}

/// Between title and plot, as many lines as it takes.
struct Legend {
    entries: Vec<(Swatch, String, i32, i32)>,
    lines: i32,
}

impl Legend {
    fn of(panel: &Panel) -> Legend {
        let bars = || panel.series.iter().flat_map(|series| &series.bars);
        let mut wanted: Vec<(Swatch, String)> =
            panel.series.iter().map(|series| (Swatch::Filled(series.colour), series.name.clone())).collect();
        if bars().flatten().any(|bar| bar.hollow) {
            wanted.push((Swatch::Hollow, panel.hollow.clone()));
        }
        if bars().flatten().any(|bar| bar.diamond.is_some()) {
            wanted.push((Swatch::Diamond, panel.diamond.clone()));
        }
        if bars().flatten().any(|bar| bar.spread.most > bar.spread.least) {
            wanted.push((Swatch::Whisker, "least to most of the runs".to_owned()));
        }
        if bars().any(Option::is_none) {
            wanted.push((Swatch::Nothing, "\u{2013} not measured".to_owned()));
        }
        Legend::arrange(wanted, width(panel) as i32 - 2 * MARGIN as i32)
    }

    fn arrange(wanted: Vec<(Swatch, String)>, room: i32) -> Legend {
        let (mut x, mut line, mut entries) = (0, 0, Vec::new());
        for (swatch, text) in wanted {
            let takes = SWATCH + (text.chars().count() as f64 * f64::from(TEXT) * CHARACTER).ceil() as i32;
            if x > 0 && x + takes > room {
                (x, line) = (0, line + 1);
            }
            entries.push((swatch, text, x, line));
            x += takes + 14;
        }
        Legend { entries, lines: line + 1 }
    }

    fn draw<'a>(&self, root: &Area<'a>, top: i32) -> Drawn<'a> {
        for (swatch, text, x, line) in &self.entries {
            let (x, y) = (x + MARGIN as i32, top + line * LINE);
            let text_x = if matches!(swatch, Swatch::Nothing) { x } else { x + SWATCH };
            swatch.draw(root, x, y)?;
            let left = Pos::new(HPos::Left, VPos::Center);
            root.draw(&Text::new(text.clone(), (text_x, y + 7), font(TEXT).color(&INK).pos(left)))?;
        }
        Ok(())
    }
}

const SWATCH: i32 = 20;

impl Swatch {
    fn draw<'a>(self, root: &Area<'a>, x: i32, y: i32) -> Drawn<'a> {
        let line = |from: (i32, i32), to: (i32, i32)| {
            root.draw(&PathElement::new([(x + from.0, y + from.1), (x + to.0, y + to.1)], INK.stroke_width(1)))
        };
        match self {
            Swatch::Filled(colour) => root.draw(&Rectangle::new([(x, y), (x + 14, y + 14)], colour.filled())),
            Swatch::Hollow => {
                let corners = [(x, y), (x + 13, y), (x + 13, y + 13), (x, y + 13), (x, y)];
                root.draw(&PathElement::new(corners, INK.stroke_width(2)))
            }
            Swatch::Whisker => {
                line((7, 0), (7, 14))?;
                line((3, 0), (11, 0))?;
                line((3, 14), (11, 14))
            }
            Swatch::Diamond => root.draw(&(EmptyElement::at((x + 7, y + 7)) + outline())),
            Swatch::Nothing => Ok(()),
        }
    }
}
