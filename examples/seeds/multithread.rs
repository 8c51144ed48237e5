//! PyUtils MultiThread: workers that find out from a queue what to do, by name.

use std::error::Error;

use inparallel::{Pool, Tasks, task};

use crate::http;

// def getData(**kwargs):
//     args = kwargs['args']
//     try:
//         content = urllib.request.urlopen(args['get_url']).read()
//     except HTTPError:
//         content = None
//     args['output']['content'] = content
#[task]
fn get_data(get_url: String) -> Option<String> {
    http::get(&get_url).ok()
}

// What `args` is for another action.
#[task]
fn count_bytes(get_url: String) -> Option<String> {
    Some(http::get(&get_url).ok()?.len().to_string())
}

pub(crate) fn run(links: Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut links = http::links(links, 2)?.into_iter().cycle();
    let mut link = || links.next().unwrap_or_default();

    // class ThreadWorker(Thread):
    //     def run(self):
    //         while True:
    //             action_type, args = self.task_queue.get()
    //             if action_type == 'getData':
    //                 getData(args=args)
    //             self.task_queue.task_done()
    let actions = Tasks::new()
        .with("getData", get_data::later)
        .with("countBytes", count_bytes::later);

    // task_queue = Queue()
    // for i in range(CPU_COUNT):
    //     worker = ThreadWorker(task_queue)
    //     worker.daemon = True
    //     worker.start()
    let task_queue = Pool::new()?;

    // output1 = {}
    // task_queue.put(('getData', { 'get_url' : 'http://google.com', 'output' : output1}))
    let output1 = task_queue.submit(actions.call("getData", link())?)?;
    // output2 = {}
    // task_queue.put(('getData', { 'get_url' : 'http://example.com', 'output' : output2}))
    let output2 = task_queue.submit(actions.call("getData", link())?)?;
    let output3 = task_queue.submit(actions.call("countBytes", link())?)?;

    // task_queue.join()
    let idle = task_queue.wait_idle(None);
    println!("all done: {}", idle.is_some());
    for output in [output1, output2, output3] {
        let content: Option<String> = output.wait()?;
        println!("{content:?}");
    }

    // The original would have been silently done with this one.
    let unknown = actions.call::<String, Option<String>>("getDada", link());
    println!("{}", unknown.expect_err("nobody knows that action"));
    Ok(())
}
