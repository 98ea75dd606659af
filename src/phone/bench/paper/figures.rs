//! Which figures there are: the paper's 3, 4 and 5, and today's beside them.
//!
//! Owns: what is in which figure, in which colour. Never draws (see `plot`), never decides who counts (see `summary`).

use crate::phone::bench::spread::Spread;
use plotters::style::RGBColor;

use super::plot::{self, Bar, Panel, Series};
use super::subjects::Name;
use super::summary::{self, Measure, Standing, row_of, standing};
use super::words;
use crate::phone::bench::results::Results;

/// Several panels under one heading.
#[derive(Clone, Debug)]
pub struct Figure {
    pub title: String,
    pub text: String,
    pub panels: Vec<Drawing>,
}

#[derive(Clone, Debug)]
pub struct Drawing {
    /// `figure-3-per-second.svg`
    pub file: String,
    /// For those who cannot see it.
    pub label: String,
    pub svg: String,
}

// Okabe and Ito's colours, which most colour-blind people can tell apart; they differ in lightness, too.
const GREY: RGBColor = RGBColor(0x99, 0x99, 0x99);
const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);

/// The figures that answer to the paper's.
const ANSWERS: [(u8, Name, &str); 3] = [
    (3, Name::Supervisor, "as OpenSER was"),
    (4, Name::SupervisorCache, "with the descriptor cache"),
    (5, Name::SupervisorCacheQueue, "with cache and priority queue"),
];

/// Those of today, beside the best that the paper made of a supervisor.
const TODAY: [(Name, RGBColor); 6] = [
    (Name::Udp, GREY),
    (Name::SupervisorCacheQueue, VERMILION),
    (Name::SingleOwner, ORANGE),
    (Name::Symmetric, GREEN),
    (Name::SctpKernel, BLUE),
    (Name::SctpUser, PURPLE),
];

/// All of them, for each number of workers. What was not in the grid is left out.
#[must_use]
pub fn all(results: &Results) -> Vec<Figure> {
    let workers = summary::different(results, |point| point.workers);
    let mut figures = Vec::new();
    for &of in &workers {
        let sheet = Sheet { results, workers: of, named: workers.len() > 1 };
        figures.extend(ANSWERS.into_iter().filter_map(|(number, name, how)| sheet.answer(number, name, how)));
        figures.extend(sheet.today());
    }
    figures
}

/// The figures of one number of workers.
struct Sheet<'r> {
    results: &'r Results,
    workers: usize,
    /// There are others, so titles and files must say which.
    named: bool,
}

impl Sheet<'_> {
    fn answer(&self, number: u8, name: Name, how: &str) -> Option<Figure> {
        self.has(name).then(|| Figure {
            title: format!("Figure {number}{}: UDP and TCP through a supervisor, {how}", self.of_workers()),
            text: format!(
                "Answers to the paper's figure {number}. {}: {}. Its connections are renewed after so many operations, or kept. {}",
                name.text(),
                name.meaning(),
                self.priority()
            ),
            panels: Measure::ALL
                .map(|measure| {
                    let file = format!("figure-{number}");
                    self.drawing(&file, measure, name.text(), self.lifetimes(name, measure))
                })
                .into(),
        })
    }

    /// UDP and one subject with each lifetime.
    fn lifetimes(&self, name: Name, measure: Measure) -> Vec<Series> {
        let mut series = vec![Series { name: "UDP".to_owned(), colour: GREY, bars: self.udp(measure) }];
        for renew in self.renewals() {
            let colour = match renew {
                Some(50) => VERMILION,
                Some(_) => ORANGE,
                None => BLUE,
            };
            let bars = self.bars(name, renew, measure);
            series.push(Series { name: format!("TCP, {}", words::lifetime(name, renew)), colour, bars });
        }
        series
    }

    /// One pair of panels for each lifetime.
    fn today(&self) -> Option<Figure> {
        let names: Vec<(Name, RGBColor)> = TODAY.into_iter().filter(|&(name, _)| self.has(name)).collect();
        let panels = self.renewals().into_iter().flat_map(|renew| {
            let names = names.clone();
            Measure::ALL.map(move |measure| {
                let series = names.iter().map(|&(name, colour)| Series {
                    name: name.text().to_owned(),
                    colour,
                    bars: self.bars(name, renew, measure),
                });
                let file = format!("figure-6-{}", renew.map_or_else(|| "kept".to_owned(), |n| n.to_string()));
                let operations = if renew.is_some() { " operations" } else { "" };
                let title = format!("Today: connections {}{operations}", words::lifetime(Name::Symmetric, renew));
                self.drawing(&file, measure, &title, series.collect())
            })
        });
        names.iter().any(|&(name, _)| name.has_connections()).then(|| Figure {
            title: format!("Figure 6{}: today's transports beside UDP and the paper's best", self.of_workers()),
            text: format!(
                "What the paper could not measure: designs without a supervisor, and SCTP, where the kernel keeps connections and \
                 message boundaries. {}",
                self.priority()
            ),
            panels: panels.collect(),
        })
    }

    fn drawing(&self, file: &str, measure: Measure, title: &str, series: Vec<Series>) -> Drawing {
        let title = format!("{title}{}", self.of_workers());
        let panel = Panel {
            warning: self.results.sketch.then(|| super::SKETCH.to_owned()),
            y_axis: measure.text().to_owned(),
            x_axis: "clients".to_owned(),
            groups: self.clients().iter().map(|&clients| words::whole(clients as f64)).collect(),
            series,
            diamond: "supervisor at nice 0".to_owned(),
            hollow: "hollow: does not count; the tables say why".to_owned(),
            title: title.clone(),
        };
        let workers = if self.named { format!("-{}-workers", self.workers) } else { String::new() };
        Drawing {
            file: format!("{file}{workers}-{}.svg", measure.token()),
            label: format!("{title}: {} by number of clients", measure.text()),
            svg: plot::svg(&panel),
        }
    }

    /// All that was measured of UDP, whatever it stood beside.
    fn udp(&self, measure: Measure) -> Vec<Option<Bar>> {
        let bar = |&clients: &usize| {
            let row = summary::udp(self.results, self.workers, clients)?;
            let spread = Spread::of_known(&row, |sample| measure.of(sample))?;
            Some(Bar { spread, hollow: standing(&row) != Standing::Counts, diamond: None })
        };
        self.clients().iter().map(bar).collect()
    }

    fn bars(&self, name: Name, renew: Option<u64>, measure: Measure) -> Vec<Option<Bar>> {
        let nices = summary::nices(self.results);
        let shown = nices.first().copied().unwrap_or(0);
        let find = |clients, nice| row_of(self.results, name, self.workers, clients, renew, nice);
        let bar = |&clients: &usize| {
            let row = find(clients, shown)?;
            let spread = Spread::of_known(row, |sample| measure.of(sample))?;
            let plain = (name.has_supervisor() && shown != 0).then(|| find(clients, 0)).flatten();
            let plain = plain.filter(|row| standing(row) == Standing::Counts);
            let diamond =
                plain.and_then(|row| Spread::of_known(row, |sample| measure.of(sample))).map(|spread| spread.median);
            Some(Bar { spread, hollow: standing(row) != Standing::Counts, diamond })
        };
        self.clients().iter().map(bar).collect()
    }

    fn has(&self, name: Name) -> bool {
        self.results.rows.iter().any(|row| row.point.subject.name == name.text() && row.point.workers == self.workers)
    }

    fn clients(&self) -> Vec<usize> {
        summary::different(self.results, |point| point.clients)
    }

    /// Alone, UDP says nothing of lifetimes.
    fn renewals(&self) -> Vec<Option<u64>> {
        let connected = |name: &str| Name::of(name).is_some_and(Name::has_connections);
        let of = summary::different(self.results, |point| (connected(&point.subject.name), point.renew_every));
        of.into_iter().filter(|(connected, _)| *connected).map(|(_, renew)| renew).collect()
    }

    fn of_workers(&self) -> String {
        if self.named { format!(" ({} workers)", self.workers) } else { String::new() }
    }

    fn priority(&self) -> String {
        match summary::nices(self.results).as_slice() {
            [first, _, ..] => format!(
                "Bars: the supervisor at nice\u{a0}{}, so that it runs whenever it has work; diamonds: at nice\u{a0}0.",
                words::nice(*first)
            ),
            [only] => format!("The supervisor ran at nice\u{a0}{}.", words::nice(*only)),
            [] => String::new(),
        }
    }
}
