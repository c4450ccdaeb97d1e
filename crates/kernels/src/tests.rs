#[test]
fn self_tests_pass() {
    for kernels in crate::Kernels::all() {
        for check in kernels.self_test() {
            eprintln!("{} {check:?}", kernels.name());
            assert!(check.passed(), "{}: {check:?}", kernels.name());
        }
    }
}
