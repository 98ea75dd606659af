mod rig;
fn main() {
    rig::run(&[]);
}
