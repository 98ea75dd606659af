//! stub until merged
use crate::config::*; use crate::message::*; use crate::timer::Tick;
#[derive(Clone, Copy)] pub struct Location;
pub enum Found { Targets(usize), NoBinding, Unknown }
impl Location {
 pub fn targets(&self, _a:&Uri<'_>, _n:Tick, _e:&mut dyn FnMut(&[u8],u16))->Found{Found::Unknown}
 pub fn register(&self, _m:&Message<'_>, _n:Tick, _w:u64, _r:&Registrar, _l:&Limits, _o:&mut Vec<u8>)->(u16,&'static str){(200,"OK")}
}
impl Location { pub fn expire(&self, _n: Tick) {} }
