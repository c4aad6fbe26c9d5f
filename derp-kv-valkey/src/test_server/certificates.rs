use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::temp_dir::TempDir;
use super::{Error, Result};

/// Which certificate a TLS server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerCertificate {
    /// For `localhost`, 127.0.0.1 and each [`Name`](super::Name), in its time.
    Valid,
    /// As `Valid`, but it ended years ago.
    Expired,
    /// For `elsewhere.invalid` only.
    WrongHost,
    /// As `Valid`, but from [`Certificates::other_ca`].
    OtherCa,
}

/// PEM files of an authority made for one test; removed with the value.
///
/// # Examples
///
/// ```
/// use derp_kv_valkey::test_server::Certificates;
///
/// let certificates = Certificates::generate()?;
/// assert!(std::fs::read_to_string(certificates.ca())?.starts_with("-----BEGIN CERTIFICATE"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// Makes two authorities, the servers' certificates and the clients'.
    ///
    /// # Errors
    ///
    /// When a file cannot be written or no key can be made.
    pub fn generate() -> Result<Self> {
        let made = Self { dir: TempDir::new()? };
        let here = &["localhost", "127.0.0.1", "*.name.test"][..];
        let ca = made.authority("ca")?;
        made.leaf("valid", here, &ca, 2124)?;
        made.leaf("expired", here, &ca, 2021)?;
        made.leaf("wrong-host", &["elsewhere.invalid"], &ca, 2124)?;
        made.leaf("client", &["client"], &ca, 2124)?;
        let other = made.authority("other-ca")?;
        made.leaf("other", here, &other, 2124)?;
        made.leaf("other-client", &["client"], &other, 2124)?;
        Ok(made)
    }

    /// The authority that clients should trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// An authority that signed nothing that a valid server shows.
    #[must_use]
    pub fn other_ca(&self) -> PathBuf {
        self.path("other-ca.pem")
    }

    /// A client's certificate and key.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.pair("client")
    }

    /// A client's certificate and key that no server trusts.
    #[must_use]
    pub fn other_client(&self) -> (PathBuf, PathBuf) {
        self.pair("other-client")
    }

    pub(super) fn server(&self, shown: ServerCertificate) -> (PathBuf, PathBuf) {
        self.pair(match shown {
            ServerCertificate::Valid => "valid",
            ServerCertificate::Expired => "expired",
            ServerCertificate::WrongHost => "wrong-host",
            ServerCertificate::OtherCa => "other",
        })
    }

    /// The directory of the files, for files of the test's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    fn write(&self, name: &str, text: String) -> Result<()> {
        fs::write(self.path(name), text)
            .map_err(|error| Error::io(format!("cannot write {name}"), error))
    }

    fn authority(&self, name: &str) -> Result<Issuer<'static, KeyPair>> {
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        self.write(&format!("{name}.pem"), certificate.pem())?;
        Ok(Issuer::new(params, key))
    }

    fn leaf(
        &self,
        name: &str,
        hosts: &[&str],
        issuer: &Issuer<'_, KeyPair>,
        last_year: i32,
    ) -> Result<()> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        // Nodes of a cluster are servers and clients of each other.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, issuer).map_err(failed)?;
        self.write(&format!("{name}.pem"), certificate.pem())?;
        self.write(&format!("{name}.key"), key.serialize_pem())
    }
}

fn failed(error: rcgen::Error) -> Error {
    Error::new(format!("cannot make a certificate: {error}"))
}
