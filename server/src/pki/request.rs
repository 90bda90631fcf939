//! Signing requests of nodes: nothing is taken from one but the key, and the proof that its sender has it.

use data_encoding::HEXLOWER;
use gpuquota_core::id::{NodeName, Timestamp};
use gpuquota_core::join::Digest;
use gpuquota_proto::CSR_LIMIT_BYTES;
use rcgen::{
    CertificateSigningRequestParams, IsCa, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};

use super::{Authority, PkiError, agent_params};

/// A certificate that was signed and that nobody has yet.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, DER.
    pub certificate: CertificateDer<'static>,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// Of its public key.
    pub key: Digest,
    /// Its end.
    pub not_after: Timestamp,
}

impl Authority {
    /// A node's certificate for the key of a request (PKCS #10, DER), which lasts `life_s` seconds.
    ///
    /// # Errors
    /// When it is no request, too large, not signed by the key that it names, or the key is not on P-256; and when it asks
    /// for another name than this node's, for a use that is not a client's, or to be an authority.
    pub fn sign_request(
        &self,
        node: &NodeName,
        request: &[u8],
        now: Timestamp,
        life_s: i64,
    ) -> Result<Signed, PkiError> {
        if request.len() > CSR_LIMIT_BYTES {
            return Err(PkiError::Request);
        }
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request);
        let request = request.map_err(|_| PkiError::Request)?;
        let (asked, key) = (request.params, request.public_key);
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::Request);
        }
        let params = agent_params(node, now, life_s)?;
        let own = |what: &SanType| params.subject_alt_names.contains(what);
        let plain = matches!(asked.is_ca, IsCa::NoCa | IsCa::ExplicitNoCa)
            && asked.subject_alt_names.iter().all(own)
            && (asked.extended_key_usages.iter())
                .all(|use_of| params.extended_key_usages.contains(use_of));
        if !plain {
            return Err(PkiError::Asked);
        }
        let serial = params.serial_number.as_ref();
        let serial = serial.map_or_else(String::new, |serial| HEXLOWER.encode(serial.as_ref()));
        let digest = HEXLOWER.encode(&Sha256::digest(key.subject_public_key_info()));
        Ok(Signed {
            certificate: params.signed_by(&key, &self.0)?.der().clone(),
            serial,
            key: Digest::new(&digest).map_err(|_| PkiError::Request)?,
            not_after: Timestamp((now.0.div_euclid(1000) + life_s) * 1000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_proto::identity::peer_identity;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, KeyPair,
        PKCS_ECDSA_P384_SHA384,
    };

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn request(key: &KeyPair, asked: CertificateParams) -> Vec<u8> {
        asked.serialize_request(key).unwrap().der().to_vec()
    }

    fn asking(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = CertificateParams::default();
        change(&mut params);
        params
    }

    fn named(uri: &str) -> CertificateParams {
        let name = SanType::URI(uri.try_into().unwrap());
        asking(|params| params.subject_alt_names = vec![name])
    }

    #[test]
    fn case_10_a_request_gives_its_key_and_one_that_asks_for_more_gets_nothing() {
        let authority = Authority::new(&super::super::authority(NOW).unwrap()).unwrap();
        let node = NodeName::new("gpu02").unwrap();
        let sign = |request: &[u8]| authority.sign_request(&node, request, NOW, 600);
        let key = KeyPair::generate().unwrap();
        let asked = request(&key, CertificateParams::default());
        let signed = sign(&asked).unwrap();
        let identity = peer_identity(&signed.certificate).unwrap();
        assert_eq!(identity.node, "gpu02");
        assert_eq!(identity.serial, signed.serial);
        assert_eq!(identity.not_after_unix_s * 1000, signed.not_after.0);
        // A clock that is behind is allowed for, but not at the cost of a short life.
        assert_eq!(identity.not_before_unix_s * 1000, NOW.0 - 60_000);
        assert_eq!(sign(&asked).unwrap().key, signed.key);
        assert_ne!(sign(&asked).unwrap().serial, signed.serial);
        assert!(sign(&request(&key, named("spiffe://gpuquota/node/gpu02"))).is_ok());
        let mut forged = asked.clone();
        if let Some(last) = forged.last_mut() {
            *last ^= 1;
        }
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let other = request(&other, CertificateParams::default());
        for bad in [forged, other, b"junk".to_vec(), vec![0; 20_000]] {
            assert!(matches!(sign(&bad), Err(PkiError::Request)));
        }
        let ca = asking(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        let server = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = asking(|params| params.extended_key_usages = server);
        let dns = CertificateParams::new(vec!["gpu02".to_owned()]).unwrap();
        for more in [ca, server, dns, named("spiffe://gpuquota/node/gpu01")] {
            let refused = sign(&request(&key, more));
            assert!(matches!(refused, Err(PkiError::Asked)), "{refused:?}");
        }
    }
}
