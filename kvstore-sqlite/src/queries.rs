//! The SQL of one table, written once when it is opened.

use crate::schema::{Schema, Version};

/// Statements on the entries of one table.
#[derive(Debug)]
pub(crate) struct Queries {
    pub(crate) upsert: String,
    pub(crate) remove: String,
    /// Numbers a new entry of schema 2, after its upsert.
    pub(crate) add_number: Option<String>,
    /// Removes the number of an entry of schema 2.
    pub(crate) remove_number: Option<String>,
    pub(crate) get: String,
    pub(crate) page_keys: String,
    pub(crate) page_values: String,
    pub(crate) list_all: String,
    pub(crate) last_created: Option<String>,
}

/// Finds one entry by the parameters 1 to 3.
const ENTRY: &str = "primary_namespace = ?1 AND secondary_namespace = ?2 AND key = ?3";

impl Queries {
    pub(crate) fn new(schema: &Schema) -> Self {
        let table = &schema.table;
        let (columns, values) = match schema.version {
            Version::Two => ("", ""),
            Version::Three => (", sort_order", ", ?5"),
        };
        // Schema 2 has its creation numbers in a table beside. The file's triggers keep it in step for
        // ldk-node; on connections of this crate triggers do not run.
        let (from, numbers) = match schema.version {
            Version::Two => {
                let order = table.creation_order();
                (
                    format!(
                        "\"{order}\" AS numbered CROSS JOIN \"{table}\" AS entry USING \
                         (primary_namespace, secondary_namespace, key)"
                    ),
                    "numbered",
                )
            }
            Version::Three => (format!("\"{table}\" AS entry"), "entry"),
        };
        let page = |value: &str, from: &str| {
            format!(
                "SELECT {numbers}.key, {numbers}.sort_order, {value} FROM {from} \
                 WHERE {numbers}.primary_namespace = ?1 AND {numbers}.secondary_namespace = ?2 \
                 AND {numbers}.sort_order <= ?3 \
                 AND ({numbers}.sort_order < ?3 OR {numbers}.key > ?4) \
                 ORDER BY {numbers}.sort_order DESC, {numbers}.key ASC LIMIT ?5"
            )
        };
        let keys_from = match schema.version {
            Version::Two => format!("\"{}\" AS numbered", table.creation_order()),
            Version::Three => from.clone(),
        };
        let order = (schema.version == Version::Two).then(|| table.creation_order());
        Self {
            add_number: order.as_ref().map(|order| {
                format!(
                    "INSERT INTO \"{order}\" (primary_namespace, secondary_namespace, key) \
                     SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM \"{order}\" WHERE {ENTRY})"
                )
            }),
            remove_number: order.map(|order| format!("DELETE FROM \"{order}\" WHERE {ENTRY}")),
            upsert: format!(
                "INSERT INTO \"{table}\" (primary_namespace, secondary_namespace, key, \
                 value{columns}) VALUES (?1, ?2, ?3, ?4{values}) ON CONFLICT (primary_namespace, \
                 secondary_namespace, key) DO UPDATE SET value = excluded.value"
            ),
            remove: format!("DELETE FROM \"{table}\" WHERE {ENTRY}"),
            get: format!("SELECT value FROM \"{table}\" WHERE {ENTRY}"),
            page_keys: page("NULL", &keys_from),
            page_values: page("entry.value", &from),
            list_all: format!(
                "SELECT entry.primary_namespace, entry.secondary_namespace, entry.key, \
                 octet_length(entry.value), {numbers}.sort_order FROM {from}"
            ),
            last_created: match schema.version {
                Version::Two => None,
                Version::Three => Some(format!("SELECT max(sort_order) FROM \"{table}\"")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params};

    use super::*;
    use crate::schema;

    /// The steps that SQLite takes for a page.
    fn plan(version: Version, values: bool) -> Vec<String> {
        let mut connection = Connection::open_in_memory().unwrap();
        let number = if version == Version::Two { 2 } else { 3 };
        connection.pragma_update(None, "user_version", number).unwrap();
        let found = schema::find(&connection, None).unwrap();
        let queries = Queries::new(&schema::prepare(&mut connection, found, false).unwrap());
        let sql = if values { queries.page_values } else { queries.page_keys };
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map(params!["p", "s", 5, "k", 5], |row| row.get(3)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn a_page_costs_what_it_holds_and_not_what_the_namespace_holds() {
        for (version, values) in
            [Version::Two, Version::Three].map(|v| [(v, false), (v, true)]).concat()
        {
            let plan = plan(version, values);
            assert!(plan.iter().all(|step| step.starts_with("SEARCH")), "{plan:?}");
            assert!(plan[0].contains("sort_order<?"), "{plan:?}");
            assert_eq!(
                plan.len(),
                if version == Version::Two && values { 2 } else { 1 },
                "{plan:?}"
            );
        }
    }
}
