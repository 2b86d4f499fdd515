//! Messages through a bounded queue, between any number of processes that may die at any instant.
//!
//!     cargo run --example ring -- send 1 1000      # as sender 1, a thousand messages
//!     cargo run --example ring -- receive          # prints them: the sender and the number
//!
//! A message is in the queue once `tail` has moved past it, and is taken once `head` has. So a process that dies
//! while it holds the mutex leaves a whole queue, with or without its message, and there is nothing to repair.
#![allow(clippy::print_stdout, reason = "what a program is for")]

use std::{env, error::Error};

use commonhold::{Condvar, Mutex, Space, field, plain, records};

const SLOTS: usize = 64;

plain! { struct Message { sender: u64, number: u64 } }
plain! { struct Queue { head: u64, tail: u64, slots: [Message; SLOTS] } }

impl Queue {
    fn len(&self) -> u64 {
        self.tail - self.head
    }
}

records! {
    struct Ring {
        queue: Mutex<Queue>,
        room: Condvar,
        news: Condvar,
    }
}

impl Ring {
    fn open(space: &Space) -> Result<Self, Box<dyn Error>> {
        let ring = space.record::<Self>("ring")?;
        Ok(Self { queue: ring.queue.repaired_by(|_| Ok(())), ..ring })
    }

    fn send(&self, message: Message) -> Result<(), Box<dyn Error>> {
        let full = |queue: &Queue| queue.len() >= SLOTS as u64;
        let queue = self.room.wait_while(self.queue.lock()?, |queue| queue.with(full))?;
        let tail = queue.field(field!(Queue, tail));
        let slots = queue.field(field!(Queue, slots));
        slots.at(usize::try_from(tail.get())? % SLOTS)?.set(message);
        tail.with_mut(|tail| *tail += 1);
        queue.unlock()?;
        Ok(self.news.notify_one()?)
    }

    fn receive(&self) -> Result<Message, Box<dyn Error>> {
        let queue =
            self.news.wait_while(self.queue.lock()?, |queue| queue.with(Queue::len) == 0)?;
        let head = queue.field(field!(Queue, head));
        let message =
            queue.field(field!(Queue, slots)).at(usize::try_from(head.get())? % SLOTS)?.get();
        head.with_mut(|head| *head += 1);
        queue.unlock()?;
        self.room.notify_one()?;
        Ok(message)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("COMMONHOLD_SPACE").unwrap_or("shm:default".into());
    let ring = Ring::open(&Space::open_or_format(&url)?)?;
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", sender, count] => {
            let sender = sender.parse()?;
            (1..=count.parse()?).try_for_each(|number| ring.send(Message { sender, number }))
        }
        ["receive"] => loop {
            let Message { sender, number } = ring.receive()?;
            println!("{sender} {number}");
        },
        _ => Err("ring send SENDER COUNT, or ring receive".into()),
    }
}
