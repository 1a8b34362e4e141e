//! What the server answers.

use tonic::{Request, Response, Status};

use crate::proto::book_service_server::BookService;
use crate::proto::{BookInfo, BookInfoParams, BookList, BookListParams};

/// The title of every book that is asked for by its id.
pub const PHP: &str = "21天精通php";
/// The title of the second book of the list.
pub const JAVA: &str = "21天精通java";

/// A bookshop with two books.
#[derive(Debug, Clone, Copy, Default)]
pub struct Books;

#[tonic::async_trait]
impl BookService for Books {
    async fn get_book_info(&self, request: Request<BookInfoParams>) -> Result<Response<BookInfo>, Status> {
        let BookInfoParams { book_id } = request.into_inner();
        Ok(Response::new(BookInfo { book_id, book_name: PHP.to_owned() }))
    }

    async fn get_book_list(&self, _: Request<BookListParams>) -> Result<Response<BookList>, Status> {
        let book = |book_id, name: &str| BookInfo { book_id, book_name: name.to_owned() };
        Ok(Response::new(BookList { book_list: vec![book(1, PHP), book(2, JAVA)] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::book_service_server::SERVICE_NAME;

    #[tokio::test]
    async fn answers_as_the_tutorial_does() {
        // Of the path of every call: /book.BookService/GetBookInfo.
        assert_eq!(SERVICE_NAME, "book.BookService");
        let info =
            Books.get_book_info(Request::new(BookInfoParams { book_id: 7 })).await.unwrap().into_inner();
        assert_eq!((info.book_id, &*info.book_name), (7, "21天精通php"));
        let list = Books.get_book_list(Request::new(BookListParams { page: 1, limit: 10 })).await.unwrap();
        let books: Vec<_> =
            list.get_ref().book_list.iter().map(|book| (book.book_id, &*book.book_name)).collect();
        assert_eq!(books, [(1, "21天精通php"), (2, "21天精通java")]);
    }
}
