//! Opens an embedded node in a temporary folder, adds a file, and reads it back:
//!
//! `cargo run -p cluster-ipfs --example add_and_read`

use cluster_ipfs::unixfs::{AddOptions, Metadata};
use cluster_ipfs::{Config, Node};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let node = Node::open(Config {
        path: folder.path().to_owned(),
        swarm_listen: Vec::new(),
        storage_max: None,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
    })
    .await?;

    let content = &b"hello world\n"[..];
    let mut upload = node.add(AddOptions::default())?;
    let file = upload
        .file("hello.txt", Metadata::default(), content, |_| ())
        .await?;
    // Stores and pins the file. The channel would report directories, and this upload has none.
    let (directories, _) = tokio::sync::mpsc::channel(1);
    upload.finish(Some("greeting".to_owned()), directories).await?;
    println!("added {} as {}", file.name, file.cid);

    let pieces: Vec<_> = node.cat(file.cid, 0, None).await?.try_collect().await?;
    assert_eq!(pieces.concat(), content);
    println!("read back {} bytes", file.bytes);

    node.shutdown().await;
    Ok(())
}
