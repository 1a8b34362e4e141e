//! The rows on Eureka. It keeps nothing on disk: whatever kills it wipes it too.

use callsign_testkit::eureka::EurekaFixture;

rows! {
    EurekaFixture;
    backends:
        row_6_backend_killed, row_7_backend_leaves, row_7_rolling_restarts, row_8_backend_frozen,
        row_8_no_zombie_overwrites_its_successor;
    changes:
        row_14_leases_revoked, row_15_keys_deleted, row_18_malformed_entries, row_22_flapping_entry,
        row_23_two_registrars_of_one_id;
    links:
        row_9_registrars_cut_off, row_10_instancer_cut_off, row_21_slow_link, row_21_resets;
    outages:
        row_1_killed_for_a_minute, row_2_frozen_for_half_a_minute, row_3_down_for_ten_ttls, row_4_wiped,
        row_5_wiped_and_one_dead;
}
