//! Tries random layouts and prints what was tried, or the first that failed.
//!
//! `cargo run --release -p archipelago --example layouts -- [FIRST_SEED] [COUNT]`

use archipelago::sim::layouts;

fn main() -> Result<(), layouts::LayoutError> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (first, count) = (arguments.next().unwrap_or(1), arguments.next().unwrap_or(100_000));
    println!("seeds {first} to {}: {:?}", first + count - 1, layouts::run(first, count)?);
    Ok(())
}
