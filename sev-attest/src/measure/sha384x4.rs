//! SHA-384 of four pages at once, one in each 64-bit lane of AVX2's registers.
//!
//! A single SHA-384 can't use the width of the machine: each step waits for the one before it.
//! Pages are independent of each other, so four are hashed in step, for about two fifths of the
//! time of one after the other. docs/architecture.md says why no crate does it instead.
//!
//! To review it: [`avx2::block`] is FIPS 180-4, section 6.4.2, line by line, over [`avx2::Lanes`];
//! nothing else uses `unsafe`. Without AVX2, and on other architectures, `sha2` hashes the pages
//! one after the other, and the tests hold the lanes to it.

use super::sha384::{PAGE, Sha384Digest, sha384};

/// SHA-384 of each of four pages.
pub(super) fn sha384x4(pages: [&[u8; PAGE]; 4]) -> [Sha384Digest; 4] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "calls code for a CPU feature")]
        // SAFETY: the feature was just detected.
        return unsafe { avx2::with_avx2(pages) };
    }
    pages.map(|page| sha384(page))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_extract_epi64, _mm256_or_si256,
        _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_slli_epi64, _mm256_srli_epi64,
        _mm256_xor_si256,
    };

    use super::{PAGE, Sha384Digest};

    /// Bytes of a message block.
    const BLOCK: usize = 128;

    /// SHA-384 of four pages.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code, reason = "a function for a CPU feature")]
    pub(super) unsafe fn with_avx2(pages: [&[u8; PAGE]; 4]) -> [Sha384Digest; 4] {
        digests(pages)
    }

    /// A word of each of the four messages, in one AVX2 register.
    #[derive(Clone, Copy)]
    struct Lanes(__m256i);

    /// Each method is one to four instructions, inlined into [`with_avx2`], the only way in.
    #[allow(
        unsafe_code,
        reason = "intrinsics; those without pointers are unsafe only to compilers older than 1.87"
    )]
    // SAFETY, of every block below: the instructions need AVX2, and `with_avx2`'s caller has seen
    // to it.
    impl Lanes {
        #[inline(always)]
        fn new([a, b, c, d]: [u64; 4]) -> Self {
            Self(unsafe { _mm256_set_epi64x(d as i64, c as i64, b as i64, a as i64) })
        }

        #[inline(always)]
        fn all(word: u64) -> Self {
            Self(unsafe { _mm256_set1_epi64x(word as i64) })
        }

        #[inline(always)]
        fn words(self) -> [u64; 4] {
            let Self(x) = self;
            unsafe {
                [
                    _mm256_extract_epi64::<0>(x),
                    _mm256_extract_epi64::<1>(x),
                    _mm256_extract_epi64::<2>(x),
                    _mm256_extract_epi64::<3>(x),
                ]
            }
            .map(|word| word as u64)
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_epi64(self.0, other.0) })
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            Self(unsafe { _mm256_xor_si256(self.0, other.0) })
        }

        #[inline(always)]
        fn and(self, other: Self) -> Self {
            Self(unsafe { _mm256_and_si256(self.0, other.0) })
        }

        #[inline(always)]
        fn shr<const N: i32>(self) -> Self {
            Self(unsafe { _mm256_srli_epi64::<N>(self.0) })
        }

        /// To the right by `N`; `LEFT` is 64 less `N`.
        #[inline(always)]
        fn rotr<const N: i32, const LEFT: i32>(self) -> Self {
            const { assert!(N + LEFT == 64) };
            Self(unsafe {
                _mm256_or_si256(
                    _mm256_srli_epi64::<N>(self.0),
                    _mm256_slli_epi64::<LEFT>(self.0),
                )
            })
        }
    }

    #[inline(always)]
    fn digests(pages: [&[u8; PAGE]; 4]) -> [Sha384Digest; 4] {
        let mut state = INITIAL.map(Lanes::all);
        for start in (0..PAGE).step_by(BLOCK) {
            let mut words = [Lanes::all(0); 16];
            for (index, lanes) in words.iter_mut().enumerate() {
                *lanes = Lanes::new(pages.map(|page| word(page, start + index * 8)));
            }
            block(&mut state, words);
        }
        // Padding: a one, zeros, the length in bits.
        let mut words = [Lanes::all(0); 16];
        words[0] = Lanes::all(1 << 63);
        words[15] = Lanes::all(PAGE as u64 * 8);
        block(&mut state, words);

        let mut digests = [[0; 48]; 4];
        for (index, lanes) in state.into_iter().take(6).enumerate() {
            for (digest, lane) in digests.iter_mut().zip(lanes.words()) {
                digest[index * 8..][..8].copy_from_slice(&lane.to_be_bytes());
            }
        }
        digests
    }

    /// The big-endian word at a byte offset; past the end, where nobody reads, zero.
    #[inline(always)]
    fn word(page: &[u8; PAGE], at: usize) -> u64 {
        page.get(at..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// One message block of each (FIPS 180-4, section 6.4.2); the schedule is computed in place.
    #[inline(always)]
    fn block(state: &mut [Lanes; 8], mut w: [Lanes; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        for (pass, constants) in ROUND.chunks_exact(16).enumerate() {
            for i in 0..16 {
                if pass > 0 {
                    let (w2, w15) = (w[(i + 14) % 16], w[(i + 1) % 16]);
                    let s0 = w15
                        .rotr::<1, 63>()
                        .xor(w15.rotr::<8, 56>())
                        .xor(w15.shr::<7>());
                    let s1 = w2
                        .rotr::<19, 45>()
                        .xor(w2.rotr::<61, 3>())
                        .xor(w2.shr::<6>());
                    w[i] = w[i].add(s0).add(w[(i + 9) % 16]).add(s1);
                }
                let s1 = e
                    .rotr::<14, 50>()
                    .xor(e.rotr::<18, 46>())
                    .xor(e.rotr::<41, 23>());
                let choice = g.xor(e.and(f.xor(g)));
                let t1 = h
                    .add(Lanes::all(constants[i]).add(w[i]))
                    .add(s1)
                    .add(choice);
                let s0 = a
                    .rotr::<28, 36>()
                    .xor(a.rotr::<34, 30>())
                    .xor(a.rotr::<39, 25>());
                let majority = a.and(b).xor(c.and(a.xor(b)));
                let t2 = s0.add(majority);
                (h, g, f, e, d, c, b, a) = (g, f, e, d.add(t1), c, b, a, t1.add(t2));
            }
        }
        for (word, step) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = word.add(step);
        }
    }

    /// FIPS 180-4, section 5.3.4.
    const INITIAL: [u64; 8] = [
        0xcbbb_9d5d_c105_9ed8,
        0x629a_292a_367c_d507,
        0x9159_015a_3070_dd17,
        0x152f_ecd8_f70e_5939,
        0x6733_2667_ffc0_0b31,
        0x8eb4_4a87_6858_1511,
        0xdb0c_2e0d_64f9_8fa7,
        0x47b5_481d_befa_4fa4,
    ];

    /// FIPS 180-4, section 4.2.3.
    #[rustfmt::skip]
    const ROUND: [u64; 80] = [
        0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc,
        0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118,
        0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe, 0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2,
        0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694,
        0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
        0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5,
        0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4,
        0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725, 0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70,
        0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df,
        0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
        0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30,
        0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8,
        0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53, 0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8,
        0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3,
        0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
        0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b,
        0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178,
        0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6, 0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b,
        0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c,
        0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lanes_equal_one_by_one(seeds: [u64; 4]) {
            let pages = seeds.map(|seed| {
                let mut state = seed;
                std::array::from_fn::<u8, PAGE, _>(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
            });
            let refs = [&pages[0], &pages[1], &pages[2], &pages[3]];
            prop_assert_eq!(sha384x4(refs), refs.map(|page| sha384(page)));
        }
    }

    #[test]
    fn extremes() {
        let (zero, ones) = ([0; PAGE], [0xff; PAGE]);
        let pages = [&zero, &ones, &ones, &zero];
        assert_eq!(sha384x4(pages), pages.map(|page| sha384(page)));
    }
}
