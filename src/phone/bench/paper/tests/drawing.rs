//! The figures and the page: well-formed, complete, nothing cut, nothing loaded.

use std::fs;

use roxmltree::{Document, Node};

use super::fixture;
use crate::phone::bench::paper::figures::{self, Drawing, Figure};
use crate::phone::bench::paper::plot::CHARACTER;
use crate::phone::bench::paper::subjects::Name;
use crate::phone::bench::paper::{SKETCH, draw, report};
use crate::phone::bench::results::Results;

fn drawings(results: &Results) -> Vec<Drawing> {
    figures::all(results).into_iter().flat_map(|figure| figure.panels).collect()
}

fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text().map(|t| t.trim().to_owned()))
        .collect()
}

fn many() -> Vec<Results> {
    let plan = fixture::plan();
    let large =
        super::super::grid::Plan { clients: vec![100, 500, 1_000, 10_000], workers: vec![2, 24], ..plan.clone() };
    let alone = super::super::grid::Plan { subjects: vec![Name::Udp, Name::Supervisor], ..plan.clone() };
    vec![
        fixture::results(),
        fixture::sketch(),
        fixture::filled(&plan, 0),
        fixture::filled(&plan, 1),
        fixture::filled(&large, 3),
        fixture::filled(&alone, 2),
    ]
}

#[test]
fn the_papers_three_figures_and_todays_are_there() {
    let figures: Vec<Figure> = figures::all(&fixture::results());
    let files: Vec<Vec<&str>> =
        figures.iter().map(|figure| figure.panels.iter().map(|panel| panel.file.as_str()).collect()).collect();
    assert_eq!(files.len(), 4);
    for (n, files) in [3, 4, 5].iter().zip(&files) {
        assert_eq!(*files, [format!("figure-{n}-per-second.svg"), format!("figure-{n}-per-cpu-second.svg")]);
    }
    assert_eq!(files[3].len(), 6, "two measures for each lifetime");
    let mut all: Vec<&str> = files.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 12, "no file twice");
}

#[test]
fn every_subject_is_in_a_legend_and_every_axis_has_title_and_unit() {
    let results = fixture::results();
    let figures = figures::all(&results);
    for (figure, lifetimes) in figures.iter().zip([true, true, true, false]) {
        for panel in &figure.panels {
            let texts = texts(&panel.svg);
            let has = |text: &str| assert!(texts.iter().any(|t| t == text), "{}: {text} in {texts:?}", panel.file);
            match lifetimes {
                true => {
                    ["UDP", "TCP, renewed every 50", "TCP, renewed every 500", "TCP, kept"].into_iter().for_each(has)
                }
                false => ["TCP single_owner", "TCP symmetric", "SCTP kernel", "SCTP user"].into_iter().for_each(has),
            };
            has("UDP");
            ["clients", "100", "500", "1,000"].into_iter().for_each(has);
            assert!(texts.iter().any(|text| text.starts_with("thousand operations per")), "{texts:?}");
        }
    }
}

#[test]
fn every_bar_has_its_figure_and_rows_of_the_phones_are_hollow() {
    let results = fixture::results();
    let panels = drawings(&results);
    let panel = panels.iter().find(|panel| panel.file == "figure-6-kept-per-second.svg").unwrap();
    let document = Document::parse(&panel.svg).unwrap();
    let purple = |node: &Node| node.attribute("stroke").is_some_and(|colour| colour.eq_ignore_ascii_case("#cc79a7"));
    assert_eq!(document.descendants().filter(purple).count(), 1, "SCTP user with 100 clients");
    let full = |node: &Node| {
        node.has_tag_name("rect") && node.attribute("fill").is_some_and(|c| c.eq_ignore_ascii_case("#cc79a7"))
    };
    assert_eq!(document.descendants().filter(full).count(), 3, "two bars and the legend");
    let texts = texts(&panel.svg);
    for figure in ["24.4", "23.3", "15.1"] {
        assert!(texts.iter().any(|text| text == figure), "{figure} in {texts:?}");
    }
    assert!(texts.iter().any(|text| text.starts_with("hollow")));
}

#[test]
fn a_point_without_a_sample_is_a_dash_not_a_zero() {
    let mut results = fixture::results();
    results.rows.iter_mut().filter(|row| row.point.subject.name == "TCP symmetric").for_each(|row| row.samples.clear());
    let panels = drawings(&results);
    let panel = panels.iter().find(|panel| panel.file == "figure-6-50-per-second.svg").unwrap();
    let texts = texts(&panel.svg);
    assert_eq!(texts.iter().filter(|text| *text == "–").count(), 3);
    assert!(texts.contains(&"– not measured".to_owned()));
}

/// As far as can be computed: the width of a text is known only to who draws it.
#[test]
fn no_text_is_outside_the_view_box() {
    for drawing in many().iter().flat_map(drawings) {
        let document = Document::parse(&drawing.svg).unwrap();
        let view: Vec<f64> =
            document.root_element().attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        for node in document.descendants().filter(|node| node.has_tag_name("text")) {
            let (left, top, right, bottom) = bounds(node);
            let inside = left >= 0.0 && top >= 0.0 && right <= view[2] && bottom <= view[3];
            assert!(inside, "{}: {:?} at {left} {top} {right} {bottom}", drawing.file, node.text());
        }
    }
}

fn bounds(node: Node) -> (f64, f64, f64, f64) {
    let number = |name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
    let (x, y, size) = (number("x"), number("y"), number("font-size"));
    let width = node.text().unwrap().trim().chars().count() as f64 * size * CHARACTER;
    let (left, right) = match node.attribute("text-anchor").unwrap() {
        "start" => (0.0, width),
        "middle" => (-width / 2.0, width / 2.0),
        _ => (-width, 0.0),
    };
    let (up, down) = match node.attribute("dy").unwrap() {
        "0.76em" => (0.0, size),
        "0.5ex" => (-size / 2.0, size / 2.0),
        _ => (-size, 0.0),
    };
    match node.attribute("transform") {
        None => (x + left, y + up, x + right, y + down),
        // A quarter to the left, or to the right.
        Some(turned) if turned.starts_with("rotate(270") => (x + up, y - right, x + down, y - left),
        Some(_) => (x - down, y + left, x - up, y + right),
    }
}

#[test]
fn a_sketch_says_so_everywhere() {
    let results = fixture::sketch();
    assert!(drawings(&results).iter().all(|panel| texts(&panel.svg).iter().any(|text| text == SKETCH)));
    let folder = std::env::temp_dir().join(format!("strowger-paper-{}-sketch", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    draw(&folder, &results).unwrap();
    for file in ["report.html", "table.md"] {
        assert!(fs::read_to_string(folder.join(file)).unwrap().contains(SKETCH), "{file}");
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(!report::page(&fixture::results(), &[]).contains(SKETCH));
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    for results in many() {
        let figures = figures::all(&results);
        let page = report::page(&results, &figures);
        // As XML, which is stricter than HTML: every element closed, every `<` and `&` of a text escaped.
        let xml = page.replacen("<!DOCTYPE html>\n", "", 1).replace("<meta charset=\"utf-8\">", "");
        let xml = xml.replacen("initial-scale=1\">", "initial-scale=1\"/>", 1);
        let document = Document::parse(&xml).unwrap();
        for foreign in ["http:", "https:", "<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        let drawn = document.descendants().filter(|node| node.has_tag_name("svg")).count();
        assert_eq!(drawn, figures.iter().map(|figure| figure.panels.len()).sum::<usize>());
        assert!(page.contains("Fixture &lt;i&gt; &amp; Co."));
    }
}

/// `LOOK=DIR cargo test --lib paper` leaves the pages there, for a person's eyes.
#[test]
fn the_fixtures_can_be_looked_at() {
    let Some(folder) = std::env::var_os("LOOK") else { return };
    for (n, results) in many().iter().enumerate() {
        let folder = std::path::Path::new(&folder).join(n.to_string());
        fs::create_dir_all(&folder).unwrap();
        draw(&folder, results).unwrap();
    }
}
