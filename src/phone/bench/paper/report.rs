//! `report.html`: everything in one file that opens by itself, without network and script.
//!
//! Owns: the page and its words. Figures and tables are made elsewhere.

use super::figures::Figure;
use super::remarks;
use super::subjects::Name;
use super::summary;
use super::tables::{self, Table};
use super::{verdict, words};
use crate::phone::bench::results::{Machine, Results};
use crate::phone::bench::rig::PHONES_NICE;

/// Terms, each in a sentence.
const TERMS: [(&str, &str); 11] = [
    ("operation", "one INVITE transaction or one BYE transaction that was completed; a call is one of each."),
    ("client", "one phone that calls, again and again, one call at a time; there are as many phones that are called."),
    (
        "connections renewed every 50",
        "after 50 operations a phone goes on over a new connection and leaves the old one open, as the paper's did, so the \
         proxy has to find out that it idles.",
    ),
    ("connections kept", "each phone has one connection from the beginning to the end."),
    ("idle time-out", "so long without traffic a connection is closed by the proxy."),
    (
        "operations per second",
        "work divided by the time on the wall; phones and proxy share the processors of this machine.",
    ),
    (
        "operations per CPU-second",
        "the same work divided by the processor time of all processes of the proxy; this is what transports are compared by.",
    ),
    (
        "limit",
        "who could do no more: the phones, if any process of theirs was busy for 95 % of the time or more, else the proxy; or \
         nobody, where no process of the proxy was busy for so long and more than 10 % of the processors idled as well: then the \
         proxy waited for something else than a processor, as workers do for a supervisor. Only rows not limited by the phones \
         count in ratios; the others are hollow in figures and marked ○ in tables. Nor does a row count in which more than one \
         call in a thousand failed († in tables), or others used more than 10 % of the processors (‡).",
    ),
    (
        "median, least, most",
        "each point is run several times, between the others; bars are medians, whiskers go from least to most.",
    ),
    (
        "share of UDP's",
        "UDP is measured again beside each lifetime of connections; a ratio is of two runs of the same round, and the median of the \
         rounds is given.",
    ),
    ("nice", "the priority of the supervisor process, \u{2212}20 first and 19 last; the workers have 0."),
];

/// The whole page.
#[must_use]
pub fn page(results: &Results, figures: &[Figure]) -> String {
    let mut html = String::new();
    let title = "SIP over UDP, TCP and SCTP: the paper's experiment, run again";
    html += "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    html += &format!(
        "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        escape(title),
        include_str!("report.css")
    );
    html += &format!("<h1>{}</h1>\n", escape(title));
    if results.sketch {
        html += &format!("<p class=\"sketch\">{}</p>\n", escape(super::SKETCH));
    }
    html += &about(results);
    html += &table(&tables::glance(results));
    html += &list_of("Verdict", &verdict::all(results));
    html += &list_of("What to know of this run", &remarks::all(results));
    html += "<h2>How to read it</h2>\n";
    let always = TERMS.iter().map(|&(term, text)| (term.to_owned(), text.to_owned()));
    html += &terms(always.chain([("phones".to_owned(), phones(&results.machine))]));
    html += "<h2>What was compared</h2>\n";
    html += &terms(names(results).into_iter().map(|name| (name.text().to_owned(), format!("{}.", name.meaning()))));
    figures.iter().for_each(|of| html += &figure(of));
    html += &paper();
    tables::all(results).iter().for_each(|of| html += &table(of));
    html += "</body>\n</html>\n";
    html
}

fn about(results: &Results) -> String {
    let Machine { processor, processors, kernel, version, date, command, .. } = &results.machine;
    let runs = results.rows.iter().map(|row| row.samples.len()).max().unwrap_or(0);
    let measured: f64 = results.rows.iter().flat_map(|row| &row.samples).map(|sample| sample.wall_s).sum();
    let text = format!(
        "A proxy (strowger {version}, {} workers) and phones on one machine: {processor}, {processors} processors, Linux {kernel}. \
         {} points, {}, {} measured; begun {date}.",
        list(&summary::different(results, |point| point.workers)),
        results.rows.len(),
        words::times(runs),
        words::time(measured),
    );
    format!("<p>{}</p>\n<p>The command that makes it again: <code>{}</code></p>\n", escape(&text), escape(command))
}

fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn list_of(title: &str, lines: &[String]) -> String {
    let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<h2>{}</h2>\n<ul>\n{items}</ul>\n", escape(title))
}

/// They share the processors with the proxy, so their priority is part of the figure.
fn phones(machine: &Machine) -> String {
    match machine.phones_nice {
        Some(nice) => format!(
            "they ran at {}; they ask for {}, which takes root, and have the nice value of the workers without it. Then they wait for \
             processors more often, and figures are others: runs at different values are not mixed.",
            words::at_nice(nice),
            words::at_nice(PHONES_NICE)
        ),
        None => "at which nice value they ran was not kept.".to_owned(),
    }
}

fn names(results: &Results) -> Vec<Name> {
    Name::ALL.into_iter().filter(|name| results.rows.iter().any(|row| row.point.subject.name == name.text())).collect()
}

fn terms(terms: impl Iterator<Item = (String, String)>) -> String {
    let items: String = terms
        .map(|(term, text)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(&term), escape(&text)))
        .collect();
    format!("<dl>\n{items}</dl>\n")
}

fn figure(figure: &Figure) -> String {
    let panels: String = figure.panels.iter().map(|panel| inline(&panel.svg)).collect();
    format!(
        "<h2>{}</h2>\n<p>{}</p>\n<div class=\"panels\">\n{panels}</div>\n",
        escape(&figure.title),
        escape(&figure.text)
    )
}

/// Inside HTML an SVG needs no namespace.
fn inline(svg: &str) -> String {
    svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
}

/// What we know of the paper, and no more.
fn paper() -> String {
    let text = [
        "Ram, Fedeli, Cox and Rixner, \u{201c}Explaining the Impact of Network Transport Protocols on SIP Proxy Performance\u{201d}, \
         asked whether SIP over TCP is slow because of TCP or because of the server's design. In OpenSER's TCP mode they found a \
         supervisor process that every worker must ask for a descriptor before it may send.",
        "Their workloads are those of this page: 100, 500 and 1,000 clients, connections renewed every 50 operations, every 500, \
         or kept; idle time-outs of 10 s and 120 s. Their figure 3 is OpenSER as it was, figure 4 with a cache of descriptors, \
         figure 5 with a priority queue of idle connections as well.",
        "After all its mends OpenSER over TCP reached 0.50 to 0.78 of its throughput over UDP. They guessed that SCTP would need no \
         such design at all, and did not measure it.",
        "One thing is not as they had it: each of their phones placed a set number of calls; here the measured phase is a window of \
         time, within which all phones call.",
    ];
    let paragraphs: String = text.iter().map(|text| format!("<p>{}</p>\n", escape(text))).collect();
    format!("<h2>What the paper had</h2>\n{paragraphs}")
}

fn table(table: &Table) -> String {
    let class = |n: usize| if n < table.words { " class=\"word\"" } else { "" };
    let head: String =
        table.head.iter().enumerate().map(|(n, cell)| format!("<th{}>{}</th>", class(n), escape(cell))).collect();
    let row = |cells: &Vec<String>| {
        let cells: String =
            cells.iter().enumerate().map(|(n, cell)| format!("<td{}>{}</td>", class(n), escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<h2>{}</h2>\n<p>{}</p>\n<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        escape(&table.title),
        escape(&table.note)
    )
}

#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
