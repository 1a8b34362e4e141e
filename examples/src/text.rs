//! What the programs say, in two languages.

use clap::ValueEnum;

/// The language of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Lang {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*): $zh:literal, $en:literal;)*) => {
        impl Lang {
            $($(#[$doc])* #[must_use] pub fn $name(self, $($arg: $type),*) -> String {
                match self {
                    Self::Zh => format!($zh),
                    Self::En => format!($en),
                }
            })*
        }
    };
}

texts! {
    /// Who answered a call.
    request_to(address: &str): "请求服务: {address}", "request to: {address}";
    /// Before the answer of `GetBookInfo`.
    book_info(): "获取书籍详情", "book details";
    /// Before the answer of `GetBookList`.
    book_list(): "获取书籍列表", "book list";
    /// One book.
    book(id: i32, name: &str): "bookId: {id}  =>  bookName: {name}", "bookId: {id}  =>  bookName: {name}";
    /// The first line of the summary.
    summary(calls: u64, failed: u64): "共请求 {calls} 次, 失败 {failed} 次", "{calls} calls, {failed} failed";
    /// A line of the summary.
    summary_of(address: &str, calls: u64): "  {address}: {calls} 次", "  {address}: {calls}";
    /// What a server is listening on; ends in the address.
    listening(address: &str): "服务监听: {address}", "listening on: {address}";
    /// That it is registered; ends in the registry.
    registered(id: &str, registry: &str): "已注册 {id}: {registry}", "registered {id} in {registry}";
    /// That it leaves, and serves on for a moment.
    leaving(id: &str): "正在注销 {id}", "leaving {id}";
    /// That it has ended.
    stopped(): "服务已停止", "stopped";
}
