//! The vocabulary of the grammar in the types of this crate, where they can say it.

use crate::folio::PinKind;
use crate::model::{AnyOrder, At, Content, Direction, Node, Op, Refusal, Span, Term};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{self, Request, SetRequest};

pub(super) fn order_of(order: AnyOrder) -> Result<Order, Refusal> {
    order.order().ok_or(Refusal::OrderTooLarge)
}

/// Returns the page of a selector, which is resolved.
pub(super) fn pfn_of(at: At) -> Result<Pfn, Refusal> {
    match at {
        At::Pfn(pfn) => Ok(pfn),
        _ => Err(Refusal::Other),
    }
}

pub(super) fn range_of(span: Span) -> Result<PfnRange, Refusal> {
    PfnRange::new(pfn_of(span.start)?, span.pages.0).map_err(|_| Refusal::NoRange)
}

fn direction_of(direction: Direction) -> zone::Direction {
    match direction {
        Direction::Up => zone::Direction::BottomUp,
        Direction::Down => zone::Direction::TopDown,
    }
}

pub(super) fn content_of(content: Content) -> zone::Content {
    match content {
        Content::Any => zone::Content::Any,
        Content::Clean => zone::Content::PreferClean,
        Content::Dirty => zone::Content::PreferDirty,
        Content::OnlyClean => zone::Content::OnlyClean,
    }
}

pub(super) fn pin_of(term: Term) -> PinKind {
    match term {
        Term::Short => PinKind::Short,
        Term::Long => PinKind::Longterm,
    }
}

pub(super) fn request_of(
    order: AnyOrder,
    align: AnyOrder,
    within: Option<Span>,
    direction: Direction,
) -> Result<Request, Refusal> {
    let request =
        Request::order(order_of(order)?).align(order_of(align)?).direction(direction_of(direction));
    Ok(match within {
        Some(span) => request.within(range_of(span)?),
        None => request,
    })
}

/// Returns what an operation that asks for a set asks for.
pub(super) fn set_request_of(op: &Op) -> Result<SetRequest, Refusal> {
    match *op {
        Op::AllocSet { pages, prefer, least, within, direction, content, node, room: _ } => {
            let mut request = SetRequest::pages(pages.0)
                .for_owner(pages.0)
                .prefer(order_of(prefer)?)
                .least(order_of(least)?)
                .direction(direction_of(direction))
                .content(content_of(content));
            if let Some(span) = within {
                request = request.within(range_of(span)?);
            }
            if let Node::At(place) = node {
                request = request.node(place.into()).tier(place.into()).tag([place; 16]);
            }
            Ok(request)
        }
        Op::AllocShared { pages, prefer, least, clones: _ } => {
            let request = SetRequest::pages(pages.0).for_owner(pages.0);
            Ok(request.prefer(order_of(prefer)?).least(order_of(least)?))
        }
        _ => Err(Refusal::Other),
    }
}
