//! Round trips of any value, and no panic for any text.

use super::*;

proptest::proptest! {
    #[test]
    fn periods_round_trip(nanos in 0..=i64::MAX as u64) {
        let period = Period(Duration::from_nanos(nanos));
        let json = serde_json::to_string(&period).unwrap();
        proptest::prop_assert_eq!(serde_json::from_str::<Period>(&json).unwrap(), period);
    }

    #[test]
    fn storage_limits_round_trip(bytes in 1_u64.., zeros in 0_u32..4) {
        let max = StorageMax(Some((bytes / 1000_u64.pow(zeros)).max(1) * 1000_u64.pow(zeros).min(bytes)));
        let text = String::from(max);
        proptest::prop_assert_eq!(StorageMax::try_from(text).unwrap(), max);
    }

    #[test]
    fn lists_round_trip(list in proptest::collection::vec("[a-z]{1,5}", 0..4)) {
        let file = json!({"informer": {"tags": {}}, "allocator": {"balanced": {
            "allocate_by": serde_json::to_value(Strings(list.clone())).unwrap(),
        }}});
        match parse(&file, &[]) {
            Ok(loaded) => proptest::prop_assert_eq!(loaded.config.allocator.balanced.allocate_by, list),
            Err(_) => proptest::prop_assert!(list.is_empty()),
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,40}", key in "[a-z_.]{0,12}") {
        let (root, section) = (json!({&key: text}), json!({"cluster": {&key: text}}));
        for json in [root, section, json!({"cluster": {"secret": text}})] {
            let _ = parse(&json, &[("CLUSTER_SECRET", &text)]);
            let _ = parse(&json, &[("CLUSTER_TAGS_TAGS", &text), ("CLUSTER_PEERADDRESSES", &text)]);
        }
    }
}
