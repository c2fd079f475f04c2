//! A proxy on the loopback that leads every connection to one server, and remembers where they were to go.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) struct Proxy {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// To the server at `url`, whatever is asked for. It lives as long as the program.
    pub(crate) fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = url.rsplit('/').next().unwrap().to_owned();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server, shared) = (client.unwrap(), server.clone(), Arc::clone(&shared));
                std::thread::spawn(move || lead(&client, &server, &shared).unwrap());
            }
        });
        Self { address, asked }
    }

    /// The first line and the header `Proxy-Authorization` of each connection.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn lead(mut client: &TcpStream, server: &str, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut told = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if told.is_empty() || line.to_lowercase().starts_with("proxy-authorization:") {
            told.push_str(line.trim_end());
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push(told);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let server = TcpStream::connect(server)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Either side may hang up whenever it likes.
            let _ = std::io::copy(&mut reader, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut &server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}
