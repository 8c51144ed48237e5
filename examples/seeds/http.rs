//! Pages to fetch: a server on this machine, for those who name none, and the client.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;

/// The pages to fetch: those that were asked for, or `count` of a server on this machine.
pub(crate) fn links(asked: Vec<String>, count: usize) -> std::io::Result<Vec<String>> {
    if !asked.is_empty() {
        return Ok(asked);
    }
    let address = serve()?;
    Ok((0..count)
        .map(|page| format!("http://{address}/page/{page}"))
        .collect())
}

/// Starts a server, which ends with the program. `/missing` is not there; every other page says what it is called.
pub(crate) fn serve() -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(|| answer(connection));
        }
    });
    Ok(address)
}

/// Answers requests until the client hangs up.
fn answer(mut connection: TcpStream) -> Option<()> {
    connection.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    loop {
        let request = lines.next()?.ok()?;
        // What else the client says, up to an empty line.
        while !lines.next()?.ok()?.is_empty() {}
        let page = request.split(' ').nth(1)?;
        let status = if page == "/missing" {
            "404 Not Found"
        } else {
            "200 OK"
        };
        let body = format!("this is {page}\n");
        let length = body.len();
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
    }
}

/// `requests.get(url)`: the page, or why there is none. One client in each worker, which keeps its connections.
pub(crate) fn get(url: &str) -> Result<String, String> {
    static CLIENT: OnceLock<ureq::Agent> = OnceLock::new();
    let client = CLIENT.get_or_init(|| match url.starts_with("http://127.") {
        true => ureq::Agent::config_builder().proxy(None).build().into(),
        false => ureq::agent(),
    });
    let page = client.get(url).call();
    let text = page.and_then(|mut page| page.body_mut().read_to_string());
    text.map_err(|error| format!("{url}: {error}"))
}
