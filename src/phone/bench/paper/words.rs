//! How figures and points are written for people.

use crate::phone::bench::results::Point;
use crate::phone::bench::spread::Spread;

use super::subjects::Name;

/// 23,410
#[must_use]
pub fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number <= -0.5 { format!("-{text}") } else { text }
}

/// Over a bar, in thousands: three figures, as more would be more than was measured.
#[must_use]
pub fn thousands(number: f64) -> String {
    let number = number / 1e3;
    match number {
        _ if number < 9.995 => format!("{number:.2}"),
        _ if number < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// "50 operations per connection", as a column or legend has it.
#[must_use]
pub fn lifetime(name: Name, renew_every: Option<u64>) -> String {
    match renew_every {
        Some(operations) if !name.has_connections() => format!("none, beside renewed every {operations}"),
        None if !name.has_connections() => "none".to_owned(),
        Some(operations) => format!("renewed every {operations}"),
        None => "kept".to_owned(),
    }
}

/// A point, in a line of progress.
#[must_use]
pub fn point(point: &Point) -> String {
    let name = Name::of(&point.subject.name);
    let mut text = point.subject.name.clone();
    if name.is_some_and(Name::has_supervisor) {
        text += &format!(" at nice {}", nice(point.supervisor_nice));
    }
    text += &format!(", {} clients, {} workers", whole(point.clients as f64), point.workers);
    match point.renew_every {
        Some(operations) if name == Some(Name::Udp) => {
            text += &format!(", beside connections renewed every {operations}")
        }
        None if name == Some(Name::Udp) => {}
        Some(operations) => text += &format!(", connections renewed every {operations}"),
        None => text += ", connections kept",
    }
    text
}

/// With a real minus sign.
#[must_use]
pub fn nice(value: i32) -> String {
    if value < 0 { format!("\u{2212}{}", value.unsigned_abs()) } else { value.to_string() }
}

/// Of ratios, from least to most: "0.91–0.95".
#[must_use]
pub fn range(Spread { least, most, .. }: Spread) -> String {
    match (format!("{least:.2}"), format!("{most:.2}")) {
        (least, most) if least == most => least,
        (least, most) => format!("{least}\u{2013}{most}"),
    }
}

/// At the beginning of a sentence.
#[must_use]
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Of a process.
#[must_use]
pub fn at_nice(value: i32) -> String {
    format!("nice {}", nice(value))
}

/// "2 h 05 min", "4 min", "40 s".
#[must_use]
pub fn time(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..5_400 => format!("{} min", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// Of runs: "once each", "3 times each".
#[must_use]
pub fn times(runs: usize) -> String {
    if runs == 1 { "once each".to_owned() } else { format!("{runs} times each") }
}
