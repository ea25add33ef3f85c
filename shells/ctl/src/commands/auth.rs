//! Creation, listing and revocation of credentials.

use cluster_api::{Client, CredentialAdd};

use crate::args::{Auth, AuthCreate};
use crate::failure::{Failure, print_stderr};
use crate::output::Output;
use crate::validate;

pub(super) async fn auth(client: &Client, output: &mut Output, command: Auth) -> Result<(), Failure> {
    match command {
        Auth::Create(wanted) => create(client, output, wanted).await,
        Auth::Ls(_) => output.show(&client.credentials().await?),
        Auth::Usage { credential } => output.show(&client.credential_usage(&credential).await?),
        Auth::Revoke { credential } => output.show(&client.credential_rm(&credential).await?),
        Auth::Own(_) => output.show(&client.caller().await?),
    }
}

async fn create(client: &Client, output: &mut Output, wanted: AuthCreate) -> Result<(), Failure> {
    let new = CredentialAdd {
        name: wanted.name,
        scopes: wanted.scope,
        expire_at: validate::expiry(wanted.expire_in.0)?,
        requests_per_second: wanted.rate.into(),
        max_pins: wanted.max_pins,
        max_bytes: wanted.max_bytes,
    };
    let created = client.credential_add(&new).await?;
    output.show(&created)?;
    output.flush()?;
    print_stderr(format_args!(
        "the token is shown only now: store it, or create another credential"
    ));
    if !created.value.required {
        print_stderr(format_args!(
            "warning: the API that was asked is open without credentials. Set \
             api.restapi.require_credentials to true in service.json of each peer, and restart it"
        ));
    }
    Ok(())
}
